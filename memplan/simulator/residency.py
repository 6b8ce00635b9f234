"""What one call of one component holds at each moment: its weights there, transient copies, and activations."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from memplan.facts import SEQUENTIAL, Call, Component, Group, Segment
from memplan.run import InGroups, Placement, Resident, Stored
from memplan.simulator.weights import casts, group_size, sizes, total


@dataclass(frozen=True)
class Height:
    """The highest moment of a call, in bytes, and where it is; `base` of the call is not included.

    `to_device` and `to_host` are bytes that cross the link in one such call, `ahead` those of them that come while the
    device computes, `cast` those read and written by casts.
    """

    weights: int
    copies: int
    activations: int
    segment: int
    to_device: int = 0
    to_host: int = 0
    ahead: int = 0
    cast: int = 0

    @property
    def total(self) -> int:
        """Bytes held."""
        return self.weights + self.copies + self.activations


@lru_cache(maxsize=16384)
def height(component: Component, placement: Placement, stored: Stored, call: Call) -> Height:
    """The height of `call` when the weights of `component` are placed and stored like this."""
    mover, copies = mover_of(component, placement, stored, call), Copies(component, stored)
    best, where = (-1, 0, 0, 0), 0
    for index, resident in enumerate(residents(mover, copies, call)):
        segment, end = call.segments[index], (*call.segments, call.segments[index])[index + 1].live
        for copied, activations in copies.moments(segment, end):
            if resident + copied + activations > best[0]:
                best, where = (resident + copied + activations, resident, copied, activations), index
    return Height(*best[1:], where, mover.to_device, mover.to_host, mover.ahead, copies.traffic)


def residents(mover: "Mover", copies: "Copies", call: Call) -> Iterator[int]:
    """Bytes of the component's stored weights on the device in each segment of `call`, in order."""
    for segment in call.segments:
        for module in segment.enters:
            mover.enter(call.modules[module], segment.repeat)
            copies.enter(call.modules[module], segment.repeat)
        yield mover.resident
        for module in segment.leaves:
            copies.leave(call.modules[module])
            mover.leave(call.modules[module], segment.repeat)


def mover_of(component: Component, placement: Placement, stored: Stored, call: Call) -> "Mover":
    """What moves the weights of `component` while `call` runs."""
    if isinstance(placement, InGroups):
        return Groups(component, placement, stored, call)
    return Mover(total(component, stored))


class Mover:
    """Weights on the device while a call runs; these stay. `to_device`, `to_host` and `ahead` are bytes moved."""

    def __init__(self, resident: int) -> None:
        """`resident` bytes are there when the call begins."""
        self.resident = resident
        self.to_device = self.to_host = self.ahead = 0

    def enter(self, path: str, times: int) -> None:
        """Module `path` is entered, `times` times over."""

    def leave(self, path: str, times: int) -> None:
        """Module `path` returns, `times` times over."""


class Copies:
    """Leaves cast to their compute dtype while they run: the stored copy is dropped, then made again."""

    def __init__(self, component: Component, stored: Stored) -> None:
        """No leaf is open."""
        self.table = casts(component, stored)
        self.traffic = 0
        self._open: list[tuple[int, int]] = []

    def enter(self, path: str, times: int) -> None:
        """A module is entered: a cast leaf is copied to its compute dtype."""
        if path in self.table:
            small, large = self.table[path]
            self._open.append((small, large))
            self.traffic += 2 * (small + large) * times

    def leave(self, path: str) -> None:
        """A module returns."""
        if path in self.table:
            self._open.pop()

    def moments(self, segment: Segment, end: int) -> list[tuple[int, int]]:
        """(bytes of copies beside the stored weights, activations) at the moments of a segment.

        While a leaf is cast both copies are there: before it with its input, after it with its output, when `end`
        bytes are live.
        """
        grown = sum(large - small for small, large in self._open)
        if not self._open:
            return [(grown, segment.peak)]
        return [(grown, segment.peak), (grown + self._open[-1][0], max(segment.live, end))]


class Groups(Mover):
    """Offload groups on the device while a call runs, as diffusers' hooks move them."""

    def __init__(self, component: Component, placement: InGroups, stored: Stored, call: Call) -> None:
        """All groups are in host memory, but for buffers that streams leave behind."""
        super().__init__(outside(component, placement, stored))
        groups = groups_of(component, placement)
        self.placement = placement
        self.bytes = {g: group_size(component, stored, g) for g in groups}
        self.by_onload = {g.onload: g for g in groups}
        self.by_offload = {g.offload: g for g in groups}
        self.next = self._successors(call) if placement.stream and call.method == "forward" else {}
        self.here: set[Group] = set()

    def _successors(self, call: Call) -> dict[str, Group]:
        """The group that each hooked module prefetches: the next one in the order of the first forward."""
        order = [call.modules[m] for s in call.segments for m in s.enters if call.modules[m] in self.by_onload]
        order = ["", *(path for path in order if path)]
        return {path: self.by_onload[after] for path, after in pairwise(order)}

    def enter(self, path: str, times: int) -> None:
        """A module is entered: its group comes in, and with streams the next one as well."""
        group = self.by_onload.get(path)
        if group:
            self._bring(group, times)
        if path in self.next and self.next[path].streamed:
            self.ahead += self._bring(self.next[path], times)

    def kept_in_host_memory(self, group: Group) -> bool:
        """Whether a copy stays in host memory while `group` is on the device, so that none is sent back."""
        return self.placement.level == SEQUENTIAL or (self.placement.stream and group.streamed)

    def _bring(self, group: Group, times: int) -> int:
        """Copy a group that is not here; the value is how many bytes that moves."""
        if group in self.here:
            return 0
        self.here.add(group)
        self.resident += self.bytes[group]
        self.to_device += self.bytes[group] * times
        return self.bytes[group] * times

    def leave(self, path: str, times: int) -> None:
        """A module returns: its group goes; without streams, or if never pinned, it is copied back."""
        group = self.by_offload.get(path)
        if group is not None and group in self.here:
            self.here.remove(group)
            self.resident -= self.bytes[group]
            if not self.kept_in_host_memory(group):
                self.to_host += self.bytes[group] * times


def outside(component: Component, placement: Placement, stored: Stored) -> int:
    """Bytes that `component` holds on the device while others are called, model offload aside.

    Of a component in groups that is what no group moves, and under block-level group offload with streams its groups'
    buffers: diffusers puts back the parameters of a group's modules, not their buffers.
    """
    if isinstance(placement, Resident):
        return total(component, stored)
    if not isinstance(placement, InGroups):
        return 0
    groups = groups_of(component, placement)
    table = sizes(component, stored)
    stay = set(range(len(table))) - {i for g in groups for i in g.weights}
    if placement.stream and placement.level == "block_level":
        stay |= {i for g in groups if g.streamed for i in g.weights if component.weights[i].buffer}
    return sum(table[i] for i in stay)


def groups_of(component: Component, placement: InGroups) -> tuple[Group, ...]:
    """The offload groups of `component`."""
    grouping = component.grouping(placement.level, placement.blocks)
    return grouping.groups if grouping else ()
