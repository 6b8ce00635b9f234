"""Prices a run: the only arithmetic."""

from dataclasses import replace
from functools import lru_cache

from memplan.facts import Call
from memplan.run import Run
from memplan.simulator.bill import Bill as Bill
from memplan.simulator.bill import HostMemory as HostMemory
from memplan.simulator.bill import Loss as Loss
from memplan.simulator.bill import Memory as Memory
from memplan.simulator.bill import Peak as Peak
from memplan.simulator.bill import Traffic as Traffic
from memplan.simulator.cache import Cache, Held
from memplan.simulator.chain import Chain
from memplan.simulator.compiled import compiling, pools
from memplan.simulator.device import blas_workspace, context
from memplan.simulator.host import host_memory
from memplan.simulator.loading import loading
from memplan.simulator.loss import loss
from memplan.simulator.residency import Height, height
from memplan.simulator.reuse import again, kept, together
from memplan.simulator.seconds import seconds
from memplan.simulator.starting import before_the_call, beside_the_first
from memplan.simulator.training import priced
from memplan.simulator.visits import Visit, moving, size, visits

OWN_CODE = ""
"""The component name of the pipeline's own code."""


def simulate(run: Run) -> Bill:
    """The bill of `run`: peak of each phase, host memory, bytes moved and loss. Pure."""
    if run.facts.training:
        return priced(run, run.facts.training)
    nbytes = kept(run)
    return together(_simulated(run), _simulated(again(run)), nbytes) if nbytes else _simulated(run)


def _simulated(run: Run) -> Bill:
    chain, cache, host, graphs = Chain(run), Cache(run), host_memory(run), pools(run)
    peaks: dict[tuple[str, str], Peak] = {}
    left: dict[tuple[str, str], int] = {}
    taken: dict[tuple[str, str], float] = {}
    to_device = to_host = cast = host_flops = 0
    for visit in visits(run, chain):
        step, call = visit.step, visit.call
        own, place = _height(run, call), (call.phase, call.component)
        kept = sum(nbytes for name, nbytes in graphs.items() if name != call.component)
        held = cache.after(step, call, visit.here).and_kept(visit.kept).and_graphs(kept)
        peak = _peak(run, call, own, visit, held)
        beside = host.steady - sum(size(run, name) for name in visit.lent) + own.host
        left[place] = max(left.get(place, 0), beside)
        taken[place] = taken.get(place, 0.0) + _seconds(run, call) * step.repeat + visit.moving
        if place not in peaks or peaks[place].memory.required < peak.memory.required:
            peaks[place] = peak
        to_device += own.to_device * step.repeat
        to_host += own.to_host * step.repeat
        cast += own.cast * step.repeat
        host_flops += own.host_flops * step.repeat
    gone = moving(run, (), chain.finish())
    if taken:
        taken[[*taken][-1]] += gone
    to_device += sum(size(run, name) for name in chain.arrivals)
    to_host += sum(size(run, name) for name in chain.departures)
    phases = tuple(replace(peak, host=left[place], seconds=taken[place]) for place, peak in peaks.items())
    before = replace(loading(run), seconds=before_the_call(run))
    ahead_of_it = 0 if run.facts.machine.unified else before.host  # in one pool it is the device's own memory, earlier
    host = replace(host, peak=max([host.peak, ahead_of_it, *left.values()]))
    traffic = Traffic(to_device, to_host, cast)
    once = {"compiling": compiling(run), "fetching": beside_the_first(run)}
    return Bill(phases, host, traffic, loss(run), host_flops=host_flops, loading=before, **once)


def _height(run: Run, call: Call) -> Height:
    name = call.component
    if name == OWN_CODE:
        return Height(0, 0, call.peak_segment.peak, call.segments.index(call.peak_segment), host=call.host)
    return height(run.facts.model.component(name), run.placement(name), run.stored(name), call)


def _seconds(run: Run, call: Call) -> float:
    name = call.component
    component = None if name == OWN_CODE else run.facts.model.component(name)
    placed = run.placement(name), run.stored(name)
    return seconds(component, *placed, call, run.facts.machine.rates, compiled=run.compiled.get(name))


@lru_cache(maxsize=4096)
def _place(call: Call, number: int) -> tuple[str, str]:
    """The module and the op of a segment."""
    segment = call.segments[number]
    return call.module_of(segment), call.ops[segment.op]


def _peak(run: Run, call: Call, own: Height, visit: Visit, held: Held) -> Peak:
    gpu = run.facts.machine.gpu
    weights = own.weights + visit.others
    activations = own.activations + call.base + visit.kept
    blas = blas_workspace(gpu)
    allocated = weights + own.copies + activations + blas + held.padding
    beside = weights + own.copies + blas
    occupied = max(beside + held.occupied, allocated + held.graphs)
    memory = Memory(allocated, max(beside + held.reserved, occupied), occupied + context(gpu))
    module, op = _place(call, own.segment) if own.total else ("", "")
    return Peak(call.phase, call.component, memory, weights, own.copies, activations, module, op, host=0)
