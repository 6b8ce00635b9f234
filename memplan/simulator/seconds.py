"""Seconds: what the device computes, what the host issues, and what crosses the link, each on a clock of its own."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, reduce

from memplan.facts import MATMUL, SEQUENTIAL, Call, Component, Ops, Rates, Segment
from memplan.run import Compiled, FromDisk, InGroups, OnHost, Part, Partly, Placement, Stored
from memplan.simulator.clock import Clock, Work
from memplan.simulator.compiled import Compilation
from memplan.simulator.copies import beside
from memplan.simulator.cuts import sections
from memplan.simulator.groups import streams
from memplan.simulator.movers import Coming, Going, stops
from memplan.simulator.partial import Turns, streamed
from memplan.simulator.tours import Tour, tour
from memplan.simulator.weights import works


@lru_cache(maxsize=16384)
def taken(part: Part, call: Call, *, ahead: bool = True) -> float:
    """Seconds of one `call` of a part, as those of `seconds`."""
    what = part.component, part.placement, part.stored, call, part.rates
    return seconds(*what, compiled=part.compiled, ahead=ahead)


@lru_cache(maxsize=16384)
def seconds(
    component: Component | None,
    placement: Placement,
    stored: Stored,
    call: Call,
    rates: Rates,
    *,
    compiled: Compiled | None = None,
    ahead: bool = True,
) -> float:
    """Seconds of one `call` once the pipeline is warm, the weights of `component` placed and stored like this.

    None is the pipeline's own code. Of it nothing is `compiled`. Without `ahead` no offload group is copied before the
    one that runs is done, as in the first forward.
    """
    clock = Clock(rates)
    deque(play(clock, component, placement, stored, call, compiled=compiled, ahead=ahead), maxlen=0)
    return clock.end


def play(
    clock: Clock,
    component: Component | None,
    placement: Placement,
    stored: Stored,
    call: Call,
    *,
    compiled: Compiled | None = None,
    ahead: bool = True,
    whole: bool = True,
) -> Iterator[None]:
    """One `call` on `clock`, with a pause wherever weights move, or without `whole` behind each segment.

    What is given is that of `seconds`.
    """
    if isinstance(placement, OnHost):
        for segment in call.segments:
            clock.on_host(_on_host(segment, clock.rates))
            yield
        return
    at = (stops(component, placement, stored) if component else NOWHERE) if whole else None
    hooks = _hooks(clock, component, placement, stored, call, ahead=ahead, whole=whole)
    for number, done in enumerate(work(component, stored, call, clock.rates, compiled=compiled, stops=at)):
        if hooks:
            hooks.before(number)
        clock.compute(done)
        if hooks:
            hooks.behind(number)
        yield


NOWHERE = frozenset[str]()
"""Where the pipeline's own code is cut."""


@lru_cache(maxsize=1024)
def work(
    component: Component | None,
    stored: Stored,
    call: Call,
    rates: Rates,
    *,
    compiled: Compiled | None = None,
    stops: frozenset[str] | None = None,
) -> tuple[Work, ...]:
    """The work of each segment of `call`, or of each section where it is cut at `stops`."""
    if stops is None:
        return tuple(Work.of(*each, rates) for each in _busy(component, stored, call, rates, compiled))
    every = work(component, stored, call, rates, compiled=compiled)
    return tuple(reduce(Work.then, every[part.begin : part.end]) for part in sections(call, stops))


def _busy(
    component: Component | None, stored: Stored, call: Call, rates: Rates, compiled: Compiled | None
) -> Iterator[tuple[float, int]]:
    """For each segment of `call`: seconds that the device is busy, and ops that the host issues.

    Of a CUDA graph it issues one. What guards of compiled code cost the host is not counted.
    """
    if component is None:
        yield from ((sum(map(rates.seconds, s.work)) * s.repeat, _launches(s)) for s in call.segments)
        return
    layers, casting = works(component, stored, call), beside(component, stored, call).traffic
    code = Compilation(compiled, call)
    for segment, cast in zip(call.segments, casting, strict=True):
        product, begun, spared = "", code.begun, 0
        code.enter(segment)
        for module in segment.enters:
            layer = layers.get(call.modules[module])
            product = layer.product if layer else ""
            spared += layer.spared * segment.repeat if layer and code.open else 0
        every = segment.compiled if code.open else segment.work
        busy = sum(rates.seconds(_in_dtype(ops, product), fused=code.open) for ops in every) * segment.repeat
        graphed = compiled is not None and compiled.graphs and code.open
        launches = code.begun - begun if graphed else sum(ops.count for ops in every) * segment.repeat
        yield busy + (cast - spared) / rates.bandwidth, launches
        code.leave(segment)


def _on_host(segment: Segment, rates: Rates) -> float:
    """Seconds in which the CPU issues and computes a segment."""
    computing = sum(ops.flops / rates.host_flops(ops.family, ops.dtype) for ops in segment.work)
    return computing * segment.repeat + rates.launch * _launches(segment)


def _launches(segment: Segment) -> int:
    return sum(ops.count for ops in segment.work) * segment.repeat


def _in_dtype(ops: Ops, product: str) -> Ops:
    """A product of a quantized layer's matrices is computed in the format's dtype."""
    return replace(ops, dtype=product) if product and ops.family == MATMUL else ops


def _hooks(
    clock: Clock,
    component: Component | None,
    placement: Placement,
    stored: Stored,
    call: Call,
    *,
    ahead: bool,
    whole: bool,
) -> "_Hooks | Turns | None":
    """What moves weights while the call runs, or None where they stay."""
    if component is None or not isinstance(placement, InGroups | FromDisk | Partly):
        return None
    way = tour(component, placement, stored, call, ahead=ahead, whole=whole)
    if isinstance(placement, Partly):
        return Turns(clock, {group.path: group for group in streamed(component, placement, stored)}, way.cut)
    return (_Streamed if streams(placement) else _Hooks)(clock, placement, way)


@dataclass
class _Hooks:
    """The hooks of offload groups, on the clock of one call: every copy is waited for."""

    clock: Clock
    placement: InGroups | FromDisk
    tour: Tour

    def before(self, number: int) -> None:
        """A section begins: what hooks copy before it."""
        for one in self.tour.coming[number]:
            self.clock.host += one.tensors * self._preparing
            self._come(one)

    def behind(self, number: int) -> None:
        """A section is over: what hooks copy back."""
        for one in self.tour.going[number]:
            self._go(one)

    @cached_property
    def _preparing(self) -> float:
        """Seconds in which the host issues the copy of one tensor."""
        rates = self.clock.rates
        return rates.dispatch if self.placement.level == SEQUENTIAL else rates.hook

    def _come(self, one: Coming) -> None:
        rate = self.clock.rates.disk if isinstance(self.placement, FromDisk) else self.clock.rates.to_device
        if one.now:
            self.clock.copy(one.now / rate)

    def _go(self, one: Going) -> None:
        if one.sent:
            self.clock.copy(one.sent / self.clock.rates.to_host)


class _Streamed(_Hooks):
    """Groups that are copied one ahead, from pinned memory.

    The host waits, when it enters a group, for the copy of that group; then it issues that of the next one and the work
    of this one, and after it waits for the device, which must not lose the group before. Source: `ModuleGroup` and
    `GroupOffloadingHook` of diffusers/hooks/group_offloading.py.
    """

    def _come(self, one: Coming) -> None:
        if one.now:
            self._copy(one.now)
        if one.hooked:
            self.clock.wait()
        if one.ahead:
            self._copy(one.ahead)

    def _go(self, one: Going) -> None:
        if one.released:
            self.clock.finish()
        super()._go(one)

    def _copy(self, nbytes: int) -> None:
        rates = self.clock.rates
        anew = isinstance(self.placement, InGroups) and self.placement.low_cpu_mem
        self.clock.prefetch(nbytes / rates.pinned, nbytes / rates.pinning if anew else 0.0)
