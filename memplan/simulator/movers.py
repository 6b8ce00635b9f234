"""What moves a component's weights while it is called: nothing, or the hooks of offload groups."""

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

from memplan.facts import SEQUENTIAL, Call, Component, Group
from memplan.run import FromDisk, InGroups, OnHost, Partly, Placement, Resident, Stored
from memplan.simulator.partial import slots, streamed
from memplan.simulator.weights import casts, group_size, sizes, total


def mover_of(component: Component, placement: Placement, stored: Stored, call: Call, *, ahead: bool = True) -> "Mover":
    """What moves the weights of `component` while `call` runs, groups in streams `ahead` or not."""
    if isinstance(placement, InGroups | FromDisk):
        groups = Groups(component, placement, stored, call)
        groups.next = groups.next if ahead else {}
        return groups
    if isinstance(placement, Partly):
        return Slots(component, placement, stored)
    return Mover(0 if isinstance(placement, OnHost) else total(component, stored))


class Mover:
    """Weights on the device while a call runs; these stay.

    `to_device`, `to_host` and `ahead` are bytes moved, `tensors` counts what was moved to the device.
    """

    def __init__(self, resident: int) -> None:
        """`resident` bytes are there when the call begins."""
        self.resident = resident
        self.to_device = self.to_host = self.ahead = self.tensors = 0

    def hooked(self, path: str) -> bool:
        """Whether a group comes in before module `path`."""
        return False

    def enter(self, path: str, times: int) -> None:
        """Module `path` is entered, `times` times over."""

    def leave(self, path: str, times: int) -> None:
        """Module `path` returns, `times` times over."""


class Groups(Mover):
    """Offload groups on the device while a call runs, as diffusers' hooks move them.

    A weight that two groups have in common comes with the first of them and goes with the first.
    """

    def __init__(self, component: Component, placement: InGroups | FromDisk, stored: Stored, call: Call) -> None:
        """All groups are in host memory or in files, but for buffers that streams leave behind."""
        super().__init__(outside(component, placement, stored))
        groups = groups_of(component, placement)
        self.placement = placement
        self.bytes = {g: group_size(component, stored, g) for g in groups}
        self.sizes = sizes(component, stored)
        times = Counter(i for g in groups for i in set(g.weights))
        self.common = {g: frozenset(i for i in g.weights if times[i] > 1) for g in groups}
        self.common_here: set[int] = set()
        self.by_onload = {g.onload: g for g in groups}
        self.by_offload = {g.offload: g for g in groups}
        self.next = self._successors(call) if streams(placement) and call.method == "forward" else {}
        self.here: set[Group] = set()

    def _successors(self, call: Call) -> dict[str, Group]:
        """The group that each hooked module prefetches: the next one in the order of the first forward."""
        order = [call.modules[m] for s in call.segments for m in s.enters if call.modules[m] in self.by_onload]
        order = ["", *(path for path in order if path)]
        return {path: self.by_onload[after] for path, after in pairwise(order)}

    def hooked(self, path: str) -> bool:
        """Whether a group comes in before module `path`."""
        return path in self.by_onload

    def enter(self, path: str, times: int) -> None:
        """A module is entered: its group comes in, and with streams the next one as well."""
        group = self.by_onload.get(path)
        if group:
            self._bring(group, times)
        if path in self.next and self.next[path].streamed:
            self.ahead += self._bring(self.next[path], times)

    def kept(self, group: Group) -> bool:
        """Whether a copy stays elsewhere while `group` is on the device, so that none is sent back."""
        dropped = isinstance(self.placement, FromDisk) or self.placement.level == SEQUENTIAL
        return dropped or (streams(self.placement) and group.streamed)

    def _bring(self, group: Group, times: int) -> int:
        """Copy a group that is not here; the value is how many bytes that moves."""
        if group in self.here:
            return 0
        self.here.add(group)
        moved = self.bytes[group] - sum(self.sizes[i] for i in self.common[group] & self.common_here)
        self.common_here |= self.common[group]
        self.resident += moved
        self.to_device += moved * times
        self.tensors += len(group.weights) * times
        return moved * times

    def leave(self, path: str, times: int) -> None:
        """A module returns: its group goes; without streams, or if never pinned, it is copied back."""
        group = self.by_offload.get(path)
        if group is not None and group in self.here:
            self.here.remove(group)
            moved = self.bytes[group] - sum(self.sizes[i] for i in self.common[group] - self.common_here)
            self.common_here -= self.common[group]
            self.resident -= moved
            if not self.kept(group):
                self.to_host += moved * times


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

    def hooked(self, path: str) -> bool:
        """Whether module `path` is a streamed group."""
        return path in self.groups

    def enter(self, path: str, times: int) -> None:
        """A module is entered: a streamed group computes in its slot."""
        self.resident += self.kept.get(path, 0)
        if path in self.groups:
            self.to_device += self.groups[path].packed * times
            self.tensors += self.groups[path].tensors * times

    def leave(self, path: str, times: int) -> None:
        """A module returns; nothing is copied back."""
        self.resident -= self.kept.get(path, 0)


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


def streams(placement: InGroups | FromDisk) -> bool:
    """Whether groups are copied ahead."""
    return isinstance(placement, InGroups) and placement.stream


def groups_of(component: Component, placement: InGroups | FromDisk) -> tuple[Group, ...]:
    """The offload groups of `component`; a file has each of a group's tensors once."""
    grouping = component.grouping(placement.level, placement.blocks, placement.modules)
    groups = grouping.groups if grouping else ()
    if isinstance(placement, FromDisk):
        return tuple(replace(group, weights=tuple(dict.fromkeys(group.weights))) for group in groups)
    return groups
