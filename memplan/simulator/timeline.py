"""The timeline of one pipeline call: what the device and the host hold, second by second."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from memplan.facts import Call
from memplan.run import Run
from memplan.simulator.course import Course, course
from memplan.simulator.device import context
from memplan.simulator.itinerary import itinerary
from memplan.simulator.reuse import kept
from memplan.simulator.visits import moving
from memplan.simulator.walk import Priced, component_of, walk


@dataclass(frozen=True)
class Stretch:
    """`repeat` equal runs of one call, of `seconds` each, from `begin` on; `moving` seconds go before them.

    Meanwhile components are moved, with nothing computing. Bytes are those on the device: `others` of other components'
    weights; `base` of the pipeline's own tensors and of step caches; `workspace` of the libraries' workspaces and of
    what blocks are larger than the weights in them; `unused` of what segments of the allocator are larger than the
    blocks in them at the highest moment; `context` of the device context. `host` is host memory. What the call itself
    holds is in its `course`.
    """

    call: Call
    course: Course
    begin: float
    moving: float
    seconds: float
    repeat: int
    others: Mapping[str, int]
    base: int
    workspace: int
    unused: int
    context: int
    host: int

    @property
    def end(self) -> float:
        """When the last of them is done, in seconds since the pipeline's call began."""
        return self.begin + self.moving + self.seconds * self.repeat

    @property
    def beside(self) -> int:
        """Bytes on the device beside what the call itself holds."""
        return sum(self.others.values()) + self.base + self.workspace + self.unused + self.context

    @property
    def required(self) -> int:
        """Bytes that the device must have at the highest moment: those of the bill for such a call."""
        return self.beside + max(moment.held for moment in self.course.moments)


def timeline(run: Run) -> tuple[Stretch, ...]:
    """Every stretch of a warm call in order, that in which components go back at its end included.

    Where prompts are reused it is a call with a new one, which holds the most and takes the longest.
    """
    found: list[Stretch] = []
    now = 0.0
    for priced in walk(run):
        found.append(_stretch(run, priced, now))
        now = found[-1].end
    gone = moving(run, (), itinerary(run).back)
    if found and gone:
        found.append(replace(found[-1], begin=now, moving=gone, repeat=0))
    return tuple(found)


def _stretch(run: Run, priced: Priced, begin: float) -> Stretch:
    visit, call = priced.visit, priced.visit.call
    placed = run.placement(call.component), run.stored(call.component)
    rates, compiled = run.facts.machine.rates, run.compiled.get(call.component)
    allocated, around = priced.memory.allocated, context(run.facts.machine.gpu)
    return Stretch(
        call,
        course(component_of(run, call), *placed, call, rates, compiled=compiled),
        begin,
        visit.moving,
        priced.seconds,
        visit.step.repeat,
        others=visit.others,
        base=call.base + visit.kept,
        workspace=allocated - priced.weights - priced.own.copies - priced.activations,
        unused=priced.memory.required - around - allocated,
        context=around,
        host=priced.host + kept(run),
    )
