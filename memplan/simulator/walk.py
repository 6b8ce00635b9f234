"""A run, visit by visit: what each holds at its highest, and how long it takes."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from memplan.facts import Call, Component
from memplan.run import Part, Resident, Run, Stored
from memplan.simulator.bill import Memory, Peak
from memplan.simulator.cache import Cache, Held
from memplan.simulator.compiled import pools
from memplan.simulator.device import blas_workspace, context
from memplan.simulator.host import host_memory
from memplan.simulator.residency import Height, height
from memplan.simulator.seconds import seconds, taken
from memplan.simulator.visits import Visit, size, visits

OWN_CODE = ""
"""The component name of the pipeline's own code."""


class Priced(NamedTuple):
    """A visit with its price: the highest moment of its call, host memory meanwhile, and the seconds of one."""

    visit: Visit
    own: Height
    memory: Memory
    host: int
    seconds: float

    @property
    def place(self) -> tuple[str, str]:
        """The phase, and the component that is called."""
        return self.visit.call.phase, self.visit.call.component

    @property
    def weights(self) -> int:
        """Bytes of all weights on the device at that moment."""
        return self.own.weights + sum(self.visit.others.values())

    @property
    def activations(self) -> int:
        """Bytes of activations at that moment, with the pipeline's own tensors and what step caches keep."""
        return self.own.activations + self.visit.call.base + self.visit.kept

    def peak(self, host: int, seconds: float) -> Peak:
        """That of a phase in which it is the highest moment, of so much host memory and so many seconds."""
        module, op = _place(self.visit.call, self.own.segment) if self.own.total else ("", "")
        held = self.weights, self.own.copies, self.activations
        return Peak(*self.place, self.memory, *held, module, op, host, seconds)


def walk(run: Run, *, emptied: bool = False) -> Iterator[Priced]:
    """Every visit in order, priced, or as if the allocator's cache were `emptied` before each."""
    cache, steady, graphs, gpu = Cache(run, emptied=emptied), host_memory(run).steady, pools(run), run.facts.machine.gpu
    blas, around = blas_workspace(gpu), context(gpu)
    for visit in visits(run):
        call = visit.call
        own = _height(run, call)
        held = cache.after(visit, _others(graphs, call.component) if graphs else 0)
        lent = sum([size(run.parts[name]) for name in visit.lent]) if visit.lent else 0
        memory = _memory(own, visit, held, blas, around)
        yield Priced(visit, own, memory, steady - lent + own.host, _seconds(run, call))


def _others(graphs: Mapping[str, int], component: str) -> int:
    """Bytes in the pools of graphs of the other components."""
    return sum(nbytes for name, nbytes in graphs.items() if name != component)


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


def _memory(own: Height, visit: Visit, held: Held, blas: int, around: int) -> Memory:
    """Device memory at the highest moment of a visit, with the workspaces of `blas` and what is `around` tensors."""
    beside = own.weights + sum(visit.others.values()) + own.copies + blas
    allocated = beside + own.activations + visit.call.base + visit.kept + held.padding
    occupied = max(beside + held.occupied, allocated + held.graphs)
    return Memory(allocated, max(beside + held.reserved, occupied), occupied + around)
