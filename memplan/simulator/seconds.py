"""Seconds: what the device computes, what the host issues, and what crosses the link, each on a clock of its own."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from memplan.facts import MATMUL, SEQUENTIAL, Call, Component, Ops, Rates, Segment
from memplan.run import Compiled, FromDisk, InGroups, OnHost, Partly, Placement, Stored
from memplan.simulator.clock import Clock
from memplan.simulator.compiled import Compilation
from memplan.simulator.movers import Mover, mover_of
from memplan.simulator.partial import Turns, streamed
from memplan.simulator.residency import Copies


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
) -> Iterator[None]:
    """One `call` on `clock`, with a pause behind each segment. What is given is that of `seconds`."""
    if isinstance(placement, OnHost):
        for segment in call.segments:
            clock.on_host(_on_host(segment, clock.rates))
            yield
        return
    hooks = _hooks(clock, component, placement, stored, call, ahead=ahead)
    worked = work(component, stored, call, clock.rates, compiled)
    if hooks is None:
        for busy, launches in worked:
            clock.compute(busy, launches)
            yield
        return
    for segment, (busy, launches) in zip(call.segments, worked, strict=True):
        for module in segment.enters:
            hooks.enter(call.modules[module], segment.repeat)
        clock.compute(busy, launches)
        for module in segment.leaves:
            hooks.leave(call.modules[module], segment.repeat)
        yield


@lru_cache(maxsize=1024)
def work(
    component: Component | None, stored: Stored, call: Call, rates: Rates, compiled: Compiled | None = None
) -> tuple[tuple[float, int], ...]:
    """For each segment of `call`: seconds that the device is busy, and ops that the host issues.

    Of a CUDA graph it issues one. What guards of compiled code cost the host is not counted.
    """
    if component is None:
        return tuple((sum(map(rates.seconds, s.work)) * s.repeat, _launches(s)) for s in call.segments)
    copies, done, code = Copies(component, stored, call), [], Compilation(compiled, call)
    for segment in call.segments:
        before, product, begun, spared = copies.traffic, "", code.begun, 0
        code.enter(segment)
        for module in segment.enters:
            copies.enter(call.modules[module], segment.repeat)
            layer = copies.works.get(call.modules[module])
            product = layer.product if layer else ""
            spared += layer.spared * segment.repeat if layer and code.open else 0
        every = segment.compiled if code.open else segment.work
        busy = sum(rates.seconds(_in_dtype(ops, product), fused=code.open) for ops in every) * segment.repeat
        graphed = compiled is not None and compiled.graphs and code.open
        launches = code.begun - begun if graphed else sum(ops.count for ops in every) * segment.repeat
        done.append((busy + (copies.traffic - before - spared) / rates.bandwidth, launches))
        code.leave(segment)
        for module in segment.leaves:
            copies.leave(call.modules[module])
    return tuple(done)


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
    clock: Clock, component: Component | None, placement: Placement, stored: Stored, call: Call, *, ahead: bool
) -> "_Hooks | Turns | None":
    """What moves weights while the call runs, or None where they stay."""
    if component is not None and isinstance(placement, InGroups | FromDisk):
        streamed_ahead = isinstance(placement, InGroups) and placement.stream
        mover = mover_of(component, placement, stored, call, ahead=ahead)
        return (_Streamed if streamed_ahead else _Hooks)(clock, placement, mover)
    if component is not None and isinstance(placement, Partly):
        return Turns(clock, {group.path: group for group in streamed(component, placement, stored)}, call)
    return None


@dataclass
class _Hooks:
    """The hooks of offload groups, on the clock of one call: every copy is waited for."""

    clock: Clock
    placement: InGroups | FromDisk
    mover: Mover

    def enter(self, path: str, times: int) -> None:
        """A module is entered: what its hooks copy before it."""
        mover = self.mover
        moved, ahead, tensors = mover.to_device, mover.ahead, mover.tensors
        mover.enter(path, times)
        self.clock.host += (mover.tensors - tensors) * self._preparing
        self._come(path, mover.to_device - moved - (mover.ahead - ahead), mover.ahead - ahead)

    def leave(self, path: str, times: int) -> None:
        """A module returns: what its hooks copy back."""
        sent, held = self.mover.to_host, self.mover.resident
        self.mover.leave(path, times)
        self._go(self.mover.to_host - sent, self.mover.resident < held)

    @property
    def _preparing(self) -> float:
        """Seconds in which the host issues the copy of one tensor."""
        rates = self.clock.rates
        return rates.dispatch if self.placement.level == SEQUENTIAL else rates.hook

    def _come(self, path: str, now: int, ahead: int) -> None:
        rate = self.clock.rates.disk if isinstance(self.placement, FromDisk) else self.clock.rates.to_device
        if now:
            self.clock.copy(now / rate)

    def _go(self, sent: int, released: bool) -> None:
        if sent:
            self.clock.copy(sent / self.clock.rates.to_host)


class _Streamed(_Hooks):
    """Groups that are copied one ahead, from pinned memory.

    The host waits, when it enters a group, for the copy of that group; then it issues that of the next one and the work
    of this one, and after it waits for the device, which must not lose the group before. Source: `ModuleGroup` and
    `GroupOffloadingHook` of diffusers/hooks/group_offloading.py.
    """

    def _come(self, path: str, now: int, ahead: int) -> None:
        if now:
            self._copy(now)
        if self.mover.hooked(path):
            self.clock.wait()
        if ahead:
            self._copy(ahead)

    def _go(self, sent: int, released: bool) -> None:
        if released:
            self.clock.finish()
        super()._go(sent, released)

    def _copy(self, nbytes: int) -> None:
        rates = self.clock.rates
        anew = isinstance(self.placement, InGroups) and self.placement.low_cpu_mem
        self.clock.prefetch(nbytes / rates.pinned, nbytes / rates.pinning if anew else 0.0)
