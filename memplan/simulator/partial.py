"""Components of which some groups are streamed: which those are, their bytes, and the slots that they take turns in."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from memplan.facts import Component
from memplan.run import ALIGNMENT, PAGE, SLOTS, SPLIT, Partly, Placement, Stored, spread
from memplan.simulator.clock import Clock
from memplan.simulator.cuts import Section
from memplan.simulator.weights import changed, tensors


@dataclass(frozen=True)
class Packed:
    """One streamed group: its module, its weights by number, and the `tensors` of theirs that move.

    `nbytes` are those of the tensors, `packed` with each aligned.
    """

    path: str
    weights: tuple[int, ...]
    tensors: int
    nbytes: int
    packed: int


@lru_cache(maxsize=1024)
def streamed(component: Component, placement: Partly, stored: Stored) -> tuple[Packed, ...]:
    """The groups that are streamed, in order; weights that another group has too stay on the device with theirs."""
    groups = every(component, placement, stored)
    return tuple(groups[number] for number in spread([group.nbytes for group in groups], placement.streamed))


def every(component: Component, placement: Partly, stored: Stored) -> tuple[Packed, ...]:
    """Every group that could be streamed, in order; one that shares weights has no bytes, and so is not."""
    return _every(component, (placement.level, placement.blocks, placement.modules), stored)


@lru_cache(maxsize=1024)
def _every(component: Component, setting: tuple[str, int | None, str], stored: Stored) -> tuple[Packed, ...]:
    grouping = component.grouping(*setting)
    groups = grouping.groups if grouping else ()
    times = Counter(number for group in groups for number in set(group.weights))
    return tuple(
        _packed(component, stored, group.onload, tuple(dict.fromkeys(group.weights)))
        if all(times[number] == 1 for number in group.weights)
        else Packed(group.onload, (), 0, 0, 0)
        for group in groups
        if group.onload and group.streamed
    )


def _packed(component: Component, stored: Stored, path: str, weights: tuple[int, ...]) -> Packed:
    parts = _moving(component, stored)
    sizes = [nbytes for number in weights for nbytes in parts[number]]
    return Packed(path, weights, len(sizes), sum(sizes), sum(-(-nbytes // ALIGNMENT) * ALIGNMENT for nbytes in sizes))


@lru_cache(maxsize=256)
def _moving(component: Component, stored: Stored) -> tuple[tuple[int, ...], ...]:
    """Bytes of the tensors of each weight that move: of a format that is SPLIT only the first."""
    table = tensors(component, stored)
    split = set(changed(component, stored)) if stored.format in SPLIT else ()
    return tuple(parts[:1] if number in split else parts for number, parts in enumerate(table))


@lru_cache(maxsize=1024)
def away(component: Component, placement: Placement, stored: Stored) -> frozenset[int]:
    """The weights of streamed groups, by number; none under any other placement."""
    groups = streamed(component, placement, stored) if isinstance(placement, Partly) else ()
    return frozenset(number for group in groups for number in group.weights)


def slots(groups: tuple[Packed, ...]) -> int:
    """Bytes of the slots that these groups take turns in, each as large as the largest of them."""
    return min(len(groups), SLOTS) * max((group.packed for group in groups), default=0)


def pins(groups: tuple[Packed, ...]) -> tuple[int, ...]:
    """Bytes that each group pins: whole pages, as they are registered where they are and not copied into a pool."""
    return tuple(-(-group.packed // PAGE) * PAGE for group in groups)


class Turns:
    """Streamed groups on the clock of one call, in the order in which it enters them."""

    def __init__(self, clock: Clock, groups: Mapping[str, Packed], cut: Sequence[Section]) -> None:
        """The call begins, of which this is `cut` where groups are entered: a copy is issued for each slot."""
        self.clock, self.groups, self.cut = clock, groups, cut
        entered = (passage for section in cut for passage in section.enters)
        self.waiting = deque((path, repeat) for path, repeat in entered if path in groups)
        self.there: deque[float] = deque()
        for _ in range(SLOTS):
            self._issue()

    def before(self, number: int) -> None:
        """A section begins: a streamed group that is entered waits for its copies, on the device."""
        for path, _ in self.cut[number].enters:
            if path in self.groups:
                self.clock.host += self.groups[path].tensors * self.clock.rates.launch
                self.clock.device = max(self.clock.device, self.there.popleft())

    def behind(self, number: int) -> None:
        """A section is over: the slot of a streamed group that returns is for the next one that has none."""
        for path, _ in self.cut[number].leaves:
            if path in self.groups:
                self._issue()

    def _issue(self) -> None:
        if not self.waiting:
            return
        clock, (path, times) = self.clock, self.waiting.popleft()
        clock.host += clock.rates.launch
        clock.follow(self.groups[path].packed * times / clock.rates.pinned)
        self.there.append(clock.link)
