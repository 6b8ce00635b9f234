"""Prices a run: the only arithmetic."""

from collections.abc import Iterator

from memplan.facts import Call, Step
from memplan.run import Run
from memplan.simulator.bill import Bill as Bill
from memplan.simulator.bill import HostMemory as HostMemory
from memplan.simulator.bill import Loss as Loss
from memplan.simulator.bill import Memory as Memory
from memplan.simulator.bill import Peak as Peak
from memplan.simulator.bill import Traffic as Traffic
from memplan.simulator.cache import Cache, Held
from memplan.simulator.chain import Chain
from memplan.simulator.device import blas_workspace, context
from memplan.simulator.host import host_memory
from memplan.simulator.loss import loss
from memplan.simulator.residency import Height, height, outside
from memplan.simulator.weights import total

OWN_CODE = ""
"""The component name of the pipeline's own code."""


def simulate(run: Run) -> Bill:
    """The bill of `run`: peak of each phase, host memory, bytes moved and loss. Pure."""
    chain, cache = Chain(run), Cache(run)
    resident = _resident(run)
    everything = sum(resident.values())
    peaks: dict[tuple[str, str], Peak] = {}
    to_device = to_host = cast = 0
    for step, call in _steps(run):
        chain.call(call.component)
        others = everything - resident.get(call.component, 0)
        others += sum(_size(run, name) for name in chain.here if name != call.component)
        own = _height(run, call)
        peak = _peak(run, call, own, others, cache.after(step, call, chain.here))
        known = peaks.get((call.phase, call.component))
        if known is None or known.memory.required < peak.memory.required:
            peaks[call.phase, call.component] = peak
        to_device += own.to_device * step.repeat
        to_host += own.to_host * step.repeat
        cast += own.cast * step.repeat
    chain.finish()
    to_device += sum(_size(run, name) for name in chain.arrivals)
    to_host += sum(_size(run, name) for name in chain.departures)
    return Bill(tuple(peaks.values()), host_memory(run), Traffic(to_device, to_host, cast), loss(run))


def _steps(run: Run) -> Iterator[tuple[Step, Call]]:
    trace = run.facts.trace
    for step in trace.timeline:
        call = trace.calls[step.call]
        variant = run.variant(call.component)
        yield step, trace.alternative(call, variant) if variant else call


def _size(run: Run, name: str) -> int:
    return total(run.facts.model.component(name), run.stored(name))


def _resident(run: Run) -> dict[str, int]:
    """What each component holds on the device while others run, model offload aside."""
    components = run.facts.model.components
    return {c.name: outside(c, run.placement(c.name), run.stored(c.name)) for c in components}


def _height(run: Run, call: Call) -> Height:
    name = call.component
    if name == OWN_CODE:
        return Height(0, 0, call.peak_segment.peak, call.segments.index(call.peak_segment))
    return height(run.facts.model.component(name), run.placement(name), run.stored(name), call)


def _peak(run: Run, call: Call, own: Height, others: int, held: Held) -> Peak:
    gpu = run.facts.machine.gpu
    weights = own.weights + others
    activations = own.activations + call.base
    blas = blas_workspace(gpu)
    allocated = weights + own.copies + activations + blas + held.padding
    beside = weights + own.copies + blas
    occupied = max(beside + held.occupied, allocated)
    memory = Memory(allocated, max(beside + held.reserved, occupied), occupied + context(gpu))
    segment = call.segments[own.segment]
    module, op = call.module_of(segment), call.ops[segment.op]
    return Peak(call.phase, call.component, memory, weights, own.copies, activations, module, op)
