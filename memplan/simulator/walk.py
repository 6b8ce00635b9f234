"""A run, visit by visit: what each holds at its highest, and how long it takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from memplan.facts import Call, Component
from memplan.run import Part, Resident, Run, Stored
from memplan.simulator.bill import Memory, Peak
from memplan.simulator.cache import Cache, Held
from memplan.simulator.chain import Chain
from memplan.simulator.compiled import pools
from memplan.simulator.device import blas_workspace, context
from memplan.simulator.host import host_memory
from memplan.simulator.residency import Height, height
from memplan.simulator.seconds import seconds, taken
from memplan.simulator.visits import Visit, size, visits

OWN_CODE = ""
"""The component name of the pipeline's own code."""


@dataclass(frozen=True)
class Priced:
    """A visit with its price: the highest moment of its call, and the seconds of one."""

    visit: Visit
    own: Height
    peak: Peak


def walk(run: Run, chain: Chain) -> Iterator[Priced]:
    """Every visit in order, priced; `chain` follows them."""
    cache, host, graphs = Cache(run), host_memory(run), pools(run)
    for visit in visits(run, chain):
        call = visit.call
        own = _height(run, call)
        kept = sum(nbytes for name, nbytes in graphs.items() if name != call.component)
        held = cache.after(visit.step, call, visit.here).and_kept(visit.kept).and_graphs(kept)
        beside = host.steady - sum(size(run.parts[name]) for name in visit.lent) + own.host
        yield Priced(visit, own, _peak(run, own, visit, held, beside))


def component_of(run: Run, call: Call) -> Component | None:
    """The component that is called, or None for the pipeline's own code."""
    return None if call.component == OWN_CODE else run.facts.model.component(call.component)


def _height(run: Run, call: Call) -> Height:
    return _own_code(call) if call.component == OWN_CODE else _height_of(run.parts[call.component], call)


@lru_cache(maxsize=4096)
def _own_code(call: Call) -> Height:
    return Height(0, 0, call.peak_segment.peak, call.segments.index(call.peak_segment), host=call.host)


@lru_cache(maxsize=16384)
def _height_of(part: Part, call: Call) -> Height:
    return height(part.component, part.placement, part.stored, call)


def _seconds(run: Run, call: Call) -> float:
    if call.component != OWN_CODE:
        return taken(run.parts[call.component], call)
    return seconds(None, Resident(), Stored(), call, run.facts.machine.rates)


@lru_cache(maxsize=4096)
def _place(call: Call, number: int) -> tuple[str, str]:
    """The module and the op of a segment."""
    segment = call.segments[number]
    return call.module_of(segment), call.ops[segment.op]


def _peak(run: Run, own: Height, visit: Visit, held: Held, host: int) -> Peak:
    gpu, call = run.facts.machine.gpu, visit.call
    weights = own.weights + sum(visit.others.values())
    activations = own.activations + call.base + visit.kept
    blas = blas_workspace(gpu)
    allocated = weights + own.copies + activations + blas + held.padding
    beside = weights + own.copies + blas
    occupied = max(beside + held.occupied, allocated + held.graphs)
    memory = Memory(allocated, max(beside + held.reserved, occupied), occupied + context(gpu))
    module, op = _place(call, own.segment) if own.total else ("", "")
    place = call.phase, call.component
    return Peak(*place, memory, weights, own.copies, activations, module, op, host, _seconds(run, call))
