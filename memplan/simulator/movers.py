"""What moves a component's weights while it is called: nothing, or the hooks of offload groups."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from memplan.facts import Component
from memplan.run import FromDisk, InGroups, OnHost, Partly, Placement, Resident, Stored
from memplan.simulator.groups import Load, groups_of, loads, streams
from memplan.simulator.partial import every, slots, streamed
from memplan.simulator.weights import casts, sizes, total


def mover_of(
    component: Component, placement: Placement, stored: Stored, entered: Iterable[str] = (), *, ahead: bool = True
) -> "Mover":
    """What moves the weights of `component` in a call, groups in streams `ahead` or not.

    The modules `entered` are those of the first forward, in order, by which streams know what to copy ahead.
    """
    if isinstance(placement, InGroups | FromDisk):
        return Groups(component, placement, stored, entered if ahead and streams(placement) else ())
    if isinstance(placement, Partly):
        return Slots(component, placement, stored)
    return Mover(0 if isinstance(placement, OnHost) else total(component, stored))


@lru_cache(maxsize=1024)
def stops(component: Component, placement: Placement, stored: Stored) -> frozenset[str]:
    """The modules at which weights move, of components that are streamed in part those at which they might."""
    if isinstance(placement, InGroups | FromDisk):
        return frozenset(path for g in groups_of(component, placement) for path in ("", g.onload, g.offload))
    if isinstance(placement, Partly):
        return frozenset((*(g.path for g in every(component, placement, stored)), *casts(component, stored)))
    return frozenset()


class Coming(NamedTuple):
    """What the hooks of a module copy to the device before it: bytes that it waits for, and bytes `ahead`.

    `hooked` is whether it is the module of a group.
    """

    now: int
    ahead: int
    tensors: int
    hooked: bool


class Going(NamedTuple):
    """What the hooks of a module copy back behind it, in bytes, and whether a group has left the device."""

    sent: int
    released: bool


NOTHING, STAYING = Coming(0, 0, 0, False), Going(0, False)


class Mover:
    """Weights on the device while a call runs, `resident` bytes of them now; these stay."""

    def __init__(self, resident: int) -> None:
        """`resident` bytes are there when the call begins."""
        self.resident = resident

    def enter(self, path: str, times: int) -> "Coming":
        """Module `path` is entered, `times` times over."""
        return NOTHING

    def leave(self, path: str, times: int) -> "Going":
        """Module `path` returns, `times` times over."""
        return STAYING


class Groups(Mover):
    """Offload groups on the device while a call runs, as diffusers' hooks move them.

    A weight that two groups have in common comes with the first of them and goes with the first.
    """

    def __init__(
        self, component: Component, placement: InGroups | FromDisk, stored: Stored, entered: Iterable[str]
    ) -> None:
        """All groups are in host memory or in files, but for buffers that streams leave behind.

        Each hooked module prefetches the next one `entered`.
        """
        super().__init__(outside(component, placement, stored))
        self.by_onload, self.by_offload = loads(component, placement, stored)
        self.sizes = sizes(component, stored)
        order = ["", *(path for path in entered if path and path in self.by_onload)]
        self.next = {path: self.by_onload[after] for path, after in pairwise(order)}
        self.common_here: set[int] = set()
        self.here: set[Load] = set()

    def enter(self, path: str, times: int) -> Coming:
        """A module is entered: its group comes in, and with streams the next one as well."""
        group, after = self.by_onload.get(path), self.next.get(path)
        now, own = self._bring(group) if group else (0, 0)
        ahead, others = self._bring(after) if after and after.streamed else (0, 0)
        return Coming(now * times, ahead * times, (own + others) * times, group is not None)

    def _bring(self, group: Load) -> tuple[int, int]:
        """Copy a group that is not here; the value is how many bytes and tensors that moves."""
        if group in self.here:
            return 0, 0
        self.here.add(group)
        moved = group.nbytes
        if group.common:
            moved -= sum(self.sizes[i] for i in group.common & self.common_here)
            self.common_here |= group.common
        self.resident += moved
        return moved, group.tensors

    def leave(self, path: str, times: int) -> Going:
        """A module returns: its group goes; without streams, or if never pinned, it is copied back."""
        group = self.by_offload.get(path)
        if group is None or group not in self.here:
            return STAYING
        self.here.remove(group)
        moved = group.nbytes
        if group.common:
            moved -= sum(self.sizes[i] for i in group.common - self.common_here)
            self.common_here -= group.common
        self.resident -= moved
        return Going(0 if group.kept else moved * times, moved > 0)


class Slots(Mover):
    """Streamed groups in the slots that they take turns in; all else stays.

    The slots are there from the beginning of a call to its end. A layer of a streamed group that is cast computes with
    a copy, while the stored weights stay in the slot; `Copies` counts them as dropped meanwhile.
    """

    def __init__(self, component: Component, placement: Partly, stored: Stored) -> None:
        """The slots are there."""
        groups = streamed(component, placement, stored)
        super().__init__(outside(component, placement, stored) + slots(groups))
        self.groups = {group.path: group for group in groups}
        inside = {component.weights[number].module for group in groups for number in group.weights}
        self.kept = {path: small for path, (small, _) in casts(component, stored).items() if path in inside}

    def enter(self, path: str, times: int) -> Coming:
        """A module is entered: a streamed group computes in its slot."""
        self.resident += self.kept.get(path, 0)
        group = self.groups.get(path)
        return Coming(group.packed * times, 0, group.tensors * times, True) if group else NOTHING

    def leave(self, path: str, times: int) -> Going:
        """A module returns; nothing is copied back."""
        self.resident -= self.kept.get(path, 0)
        return STAYING


@lru_cache(maxsize=1024)
def outside(component: Component, placement: Placement, stored: Stored) -> int:
    """Bytes that `component` holds on the device while others are called, model offload aside.

    Of a component that is streamed in part that is all but the streamed groups; of one in groups what no group moves,
    and under block-level group offload with streams its groups' buffers: diffusers puts back the parameters of a
    group's modules, not their buffers.
    """
    if isinstance(placement, Resident):
        return total(component, stored)
    if isinstance(placement, Partly):
        return total(component, stored) - sum(group.nbytes for group in streamed(component, placement, stored))
    if not isinstance(placement, InGroups | FromDisk):
        return 0
    groups = groups_of(component, placement)
    table = sizes(component, stored)
    stay = set(range(len(table))) - {i for g in groups for i in g.weights}
    if streams(placement) and placement.level == "block_level":
        stay |= {i for g in groups if g.streamed for i in g.weights if component.weights[i].buffer}
    return sum(table[i] for i in stay)
