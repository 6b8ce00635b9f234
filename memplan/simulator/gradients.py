"""A call that keeps gradients: its phases, and its backward pass after them.

What comes before the first forward of a denoiser is as in the call without. Each forward that keeps gradients has
segments of its own, as if none could use what another left free: more than that the allocator does not take.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from memplan.facts import DENOISING, REMADE, Call, Differentiable, Graph, Passes
from memplan.run import Run
from memplan.simulator.bill import Bill, Memory, Peak
from memplan.simulator.differentiated import Stage, backwards, forwards
from memplan.simulator.seconds import seconds
from memplan.simulator.standing import memory_of, taken

BACKWARD = "backward"
"""The phase after the call."""


def with_gradients(run: Run, asked: Differentiable, plain: Bill) -> Bill:
    """The bill of the call with its backward pass; `plain` is that of the call without gradients. Pure."""
    solve = Solve.of(run, asked)
    own = {(call.phase, call.component) for call, _ in solve.made}
    begun = next((n for n, peak in enumerate(plain.peaks) if (peak.phase, peak.component) in own), len(plain.peaks))
    after = (solve.forward(peak) if (peak.phase, peak.component) in own else solve.beside(peak)
             for peak in plain.peaks[begun:])  # fmt: skip
    peaks = (*plain.peaks[:begun], *after, *solve.backward(plain.peaks))
    return replace(plain, peaks=peaks)


@dataclass(frozen=True)
class Height:
    """Bytes that calls hold, in tensors and in segments."""

    tensors: int
    segments: int

    @classmethod
    def highest(cls, heights: Sequence["Height"]) -> "Height":
        """The most of each."""
        return cls(max(h.tensors for h in heights), max(h.segments for h in heights))


@dataclass(frozen=True)
class Solve:
    """The calls of a run through which gradients flow, in order, each with its backward.

    The first so many forwards are made `without`: they keep none.
    """

    run: Run
    made: tuple[tuple[Call, Graph], ...]
    without: int

    @classmethod
    def of(cls, run: Run, asked: Differentiable) -> "Solve":
        """As the strategies of `run` have them made; of a truncated one so many forwards as the last steps make."""
        made, steps = tuple(_made(run)), run.facts.trace.steps
        denoised = sum(call.phase == DENOISING for call, _ in made)
        kept = denoised if asked.last is None or not steps else min(-(-denoised * asked.last // steps), denoised)
        return cls(run, made, denoised - kept)

    @property
    def kept(self) -> tuple[tuple[Call, Graph], ...]:
        """Those that keep gradients."""
        return self.made[self.without :]

    @cached_property
    def stages(self) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
        """The same as stages, in tensors and in segments."""
        tensors = tuple(self._stage(call, graph.tensors) for call, graph in self.kept)
        return tensors, tuple(self._stage(call, graph.segments) for call, graph in self.kept)

    def _stage(self, call: Call, held: Passes) -> Stage:
        return Stage(call.component, **asdict(held), remade=REMADE in self.run.variant(call.component))

    @cached_property
    def _stays(self) -> tuple[int, int]:
        parts = self.run.facts.model.components
        return taken((weight.nbytes for part in parts for weight in part.weights), self.run)

    def forward(self, plain: Peak) -> Peak:
        """The phase of the call of a component, beside what the calls before it keep."""
        name = plain.component
        heights = [Height(*pair) for pair in zip(*map(forwards, self.stages), strict=True)]
        own = [h for h, (call, _) in zip(heights, self.kept, strict=True) if _is(call, plain)]
        lost = [call for call, _ in self.made[: self.without] if _is(call, plain)]
        own += [Height(call.peak_segment.peak, call.occupied_alone) for call in lost[:1]]
        return self._peak(plain, name, Height.highest(own))

    def beside(self, plain: Peak) -> Peak:
        """A phase of the pipeline's own code, beside all that is kept."""
        tensors, segments = (sum(stage.kept for stage in stages) for stages in self.stages)
        memory = plain.memory
        more = Memory(memory.allocated + tensors, memory.reserved + segments, memory.required + segments)
        return replace(plain, memory=more, activations=plain.activations + tensors)

    def backward(self, plain: Sequence[Peak]) -> Iterator[Peak]:
        """The phase of each component's backwards."""
        heights = [Height(*pair) for pair in zip(*map(backwards, self.stages), strict=True)]
        made = [*zip(heights, reversed(self.kept), strict=True)]
        for name in dict.fromkeys(call.component for _, (call, _) in made):
            own = [(height, pair) for height, pair in made if pair[0].component == name]
            call, graph = own[0][1]
            peak = next(peak for peak in plain if _is(call, peak))
            took = sum(self._seconds(*pair) for _, pair in own)
            found = self._peak(replace(peak, phase=BACKWARD), name, Height.highest([height for height, _ in own]))
            yield replace(found, module="", op=graph.call.ops[graph.call.segments[-1].op], seconds=took)

    def _peak(self, plain: Peak, name: str, height: Height) -> Peak:
        base = max(call.base for call, _ in self.made if call.component == name)
        segments = base + height.segments
        memory = memory_of(self.run, self._stays, base + height.tensors, segments, segments)
        return replace(plain, memory=memory, activations=base + height.tensors)

    def _seconds(self, call: Call, graph: Graph) -> float:
        """Seconds of one backward, and of the forward that is made again in it."""
        name, rates = call.component, self.run.facts.machine.rates
        placed = self.run.facts.model.component(name), self.run.placement(name), self.run.stored(name)
        both, first = (seconds(*placed, one, rates) for one in (graph.call, call))
        return both if REMADE in self.run.variant(name) else max(both - first, 0.0)


def _made(run: Run) -> Iterator[tuple[Call, Graph]]:
    """Each call of the timeline that has a backward, with it."""
    trace = run.facts.trace
    for step in trace.timeline:
        call = trace.calls[step.call]
        graph = trace.graph(call, run.variant(call.component))
        yield from ((call, graph),) * step.repeat if graph else ()


def _is(call: Call, peak: Peak) -> bool:
    return (call.phase, call.component) == (peak.phase, peak.component)
