"""An allocation that failed, as the error's text tells it."""

from dataclasses import dataclass

MEMORY, POSSIBLY = "memory", "possibly memory"
"""How sure it is that memory ran out: the text says so, or names a failure that often hides it."""
HOST, PINNED = "host", "pinned"
"""Memory that is no device's: the host's, and what of it is pinned for a device."""


@dataclass(frozen=True)
class Other:
    """Another process on the device, and the bytes that it holds."""

    pid: int
    nbytes: int


@dataclass(frozen=True)
class Allocation:
    """What failed. Sizes are bytes; None is what the text leaves out.

    `kind` is "cuda", "rocm", "xpu", "mps" or another device's name as PyTorch writes it, "host", "pinned", or "" where
    the text does not tell; `index` is the device's number. `asked` could not be had. Of the `capacity` `free` was free.
    This process held `in_use`, of which PyTorch had `allocated` to tensors and `unallocated` reserved beside them.
    `limit` is the most that this process may reserve; `others` are the processes that the text names.
    """

    kind: str = ""
    index: int | None = None
    asked: int | None = None
    capacity: int | None = None
    free: int | None = None
    allocated: int | None = None
    unallocated: int | None = None
    limit: int | None = None
    in_use: int | None = None
    others: tuple[Other, ...] = ()
    certainty: str = MEMORY

    @property
    def on_device(self) -> bool:
        """Whether it was a device's own memory; so where the text does not tell which."""
        return self.kind not in (HOST, PINNED)

    @property
    def reserved(self) -> int | None:
        """What PyTorch had reserved, for tensors and beside them."""
        if self.allocated is None:
            return None
        return self.allocated + (self.unallocated or 0)

    @property
    def missing(self) -> int | None:
        """By how much it was too much; None where the text has too few figures, or there was room enough in all."""
        room = [] if self.free is None else [self.free]
        held = self.in_use if self.kind == "mps" else self.reserved
        if self.limit is not None and held is not None:
            room.append(max(self.limit - held, 0))
        if self.asked is None or not room:
            return None
        return self.asked - min(room) if self.asked > min(room) else None

    @property
    def unnamed(self) -> int:
        """What neither was free, nor this process or one that is named held; 0 where that is not known."""
        if self.capacity is None or self.free is None or self.in_use is None:
            return 0
        return max(self.capacity - self.free - self.in_use - sum(other.nbytes for other in self.others), 0)

    @property
    def usable(self) -> int | None:
        """The most that this process could have had on the device: all, less what others held and limits forbid."""
        named = sum(other.nbytes for other in self.others)
        there = None if self.capacity is None else self.capacity - named - self.unnamed
        bounds = [bound for bound in (there, self.limit) if bound is not None]
        return max(min(bounds), 0) if bounds else None
