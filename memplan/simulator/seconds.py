"""Seconds: what the device computes, what the host issues, and what crosses the link, each on a clock of its own."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, reduce

from memplan.facts import MATMUL, Call, Component, Ops, Rates, Segment
from memplan.run import Compiled, OnHost, Part, Placement, Stored
from memplan.simulator.clock import Clock, Work
from memplan.simulator.compiled import Compilation
from memplan.simulator.copies import beside
from memplan.simulator.cuts import sections
from memplan.simulator.hooks import hooks_of
from memplan.simulator.movers import stops
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
    hooks = hooks_of(clock, component, placement, stored, call, ahead=ahead, whole=whole)
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
