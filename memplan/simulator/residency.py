"""What one call of one component holds at each moment: its weights there, transient copies, and activations."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from memplan.facts import Call, Component, Segment
from memplan.run import OnHost, Placement, Resident, Stored
from memplan.simulator.movers import Mover, mover_of
from memplan.simulator.weights import casts, works


@dataclass(frozen=True)
class Height:
    """The highest moment of a call, in bytes, and where it is; `base` of the call is not included.

    `to_device` and `to_host` are bytes that cross the link in one such call, `cast` those read and written by casts.
    `host` is what it holds in host memory beside stored weights, `host_flops` the floating-point operations that the
    CPU does in it.
    """

    weights: int
    copies: int
    activations: int
    segment: int
    to_device: int = 0
    to_host: int = 0
    cast: int = 0
    host: int = 0
    host_flops: int = 0

    @property
    def total(self) -> int:
        """Bytes held."""
        return self.weights + self.copies + self.activations


@lru_cache(maxsize=16384)
def height(component: Component, placement: Placement, stored: Stored, call: Call) -> Height:
    """The height of `call` when the weights of `component` are placed and stored like this."""
    if isinstance(placement, OnHost):
        there = height(component, Resident(), stored, call)
        held = there.copies + there.activations
        return Height(0, 0, 0, there.segment, cast=there.cast, host=held, host_flops=call.flops)
    mover, copies = mover_of(component, placement, stored, call), Copies(component, stored, call)
    best, where = (-1, 0, 0, 0), 0
    for index, resident, copied, activations in moments(mover, copies, call):
        if resident + copied + activations > best[0]:
            best, where = (resident + copied + activations, resident, copied, activations), index
    return Height(*best[1:], where, mover.to_device, mover.to_host, copies.traffic)


def moments(mover: Mover, copies: "Copies", call: Call) -> Iterator[tuple[int, int, int, int]]:
    """The moments of `call` in order: the segment by its number, and bytes of weights, of copies and of activations."""
    for index, resident in enumerate(residents(mover, copies, call)):
        segment, end = call.segments[index], (*call.segments, call.segments[index])[index + 1].live
        for copied, activations in copies.moments(segment, end):
            yield index, resident, copied, activations


def residents(mover: Mover, copies: "Copies", call: Call) -> Iterator[int]:
    """Bytes of the component's stored weights on the device in each segment of `call`, in order."""
    for segment in call.segments:
        for module in segment.enters:
            mover.enter(call.modules[module], segment.repeat)
            copies.enter(call.modules[module], segment.repeat)
        yield mover.resident
        for module in segment.leaves:
            copies.leave(call.modules[module])
            mover.leave(call.modules[module], segment.repeat)


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
        grown = sum(large - small for small, large in self._open)
        if not self._open:
            return [(grown, segment.peak)]
        return [(grown, segment.peak), (grown + self._open[-1][0], max(segment.live, end))]
