"""What layers hold and move to compute with weights in another format than theirs, segment by segment of a call."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from memplan.facts import Call, Component, Segment
from memplan.run import Stored
from memplan.simulator.cuts import sections
from memplan.simulator.weights import casts, works


class Crest(NamedTuple):
    """The highest of some moments, in bytes of copies beside the stored weights and of activations, and its segment."""

    segment: int
    copies: int
    activations: int

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.copies + self.activations


@dataclass(frozen=True, eq=False)
class Beside:
    """Of each segment of a call its highest moment, and the bytes that casts read and write in it."""

    crests: tuple[Crest, ...]
    traffic: tuple[int, ...]


@lru_cache(maxsize=1024)
def beside(component: Component, stored: Stored, call: Call) -> Beside:
    """What `call` holds and casts beside the weights, with `component` stored like this, wherever its weights are."""
    copies, found, traffic = Copies(component, stored, call), list[Crest](), list[int]()
    for number, segment in enumerate(call.segments):
        before, end = copies.traffic, (*call.segments[number + 1 : number + 2], segment)[0].live
        for module in segment.enters:
            copies.enter(call.modules[module], segment.repeat)
        found.append(max([Crest(number, *moment) for moment in copies.moments(segment, end)], key=_total))
        traffic.append(copies.traffic - before)
        for module in segment.leaves:
            copies.leave(call.modules[module])
    return Beside(tuple(found), tuple(traffic))


@lru_cache(maxsize=1024)
def crests(component: Component, stored: Stored, call: Call, stops: frozenset[str] | None) -> tuple[Crest, ...]:
    """The highest moment of each section of `call`, cut at `stops`, or of each segment."""
    every = beside(component, stored, call).crests
    return tuple(max(every[section.begin : section.end], key=_total) for section in sections(call, stops))


def _total(crest: Crest) -> int:
    return crest.copies + crest.activations


class Copies:
    """What layers hold to compute with weights in another format.

    Cast leaves have the compute dtype while they run: the stored copy is dropped, then made again. Quantized ones keep
    what is stored, and make what they need beside it.
    """

    def __init__(self, component: Component, stored: Stored, call: Call) -> None:
        """No leaf is open."""
        self.table = casts(component, stored)
        self.works = works(component, stored, call)
        self.traffic = 0
        self._open: list[tuple[int, int]] = []
        self._held = 0

    def enter(self, path: str, times: int) -> None:
        """A module is entered: a cast leaf is copied to its compute dtype."""
        if path in self.works:
            self._held = self.works[path].held
            self.traffic += self.works[path].traffic * times
        if path in self.table:
            small, large = self.table[path]
            self._open.append((small, large))
            self.traffic += 2 * (small + large) * times

    def leave(self, path: str) -> None:
        """A module returns."""
        self._held = 0
        if path in self.table:
            self._open.pop()

    def moments(self, segment: Segment, end: int) -> list[tuple[int, int]]:
        """(bytes of copies beside the stored weights, activations) at the moments of a segment.

        While a leaf is cast both copies are there: before it with its input, after it with its output, when `end`
        bytes are live. A quantized layer is a segment of its own.
        """
        if self._held:
            return [(max(segment.live + self._held - segment.peak, 0), segment.peak)]
        if not self._open:
            return [(0, segment.peak)]
        grown = sum(large - small for small, large in self._open)
        return [(grown, segment.peak), (grown + self._open[-1][0], max(segment.live, end))]
