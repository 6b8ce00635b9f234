"""Compiled code: which segments of a call it runs, what the host launches there, and seconds of the first call."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from memplan.facts import Call, Segment
from memplan.run import Compiled, Run

START, EACH_OP = 7.3, 22.5e-3
"""Seconds in which the compiler starts, and those that an op of a graph takes it.

Two numbers from two figures of one source: FLUX.1-dev on an H100 compiles for 67.4 s as a whole, 2674 ops here, and for
9.6 s by its blocks, of which two are different, 104 ops (docs.pytorch.org/devlogs, "torch.compile and Diffusers",
2026-05-11). Another host's speed, and the trials of max-autotune, are not in them.
"""


@dataclass
class Compilation:
    """Follows the modules of a call: `open` is whether compiled code runs, `begun` how often it has been called."""

    compiled: Compiled | None
    call: Call
    begun: int = 0
    _within: list[int] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """Whether a compiled module is running."""
        return bool(self._within)

    def enter(self, segment: Segment) -> None:
        """What begins before `segment`."""
        for module in segment.enters if self.compiled else ():
            if self.call.modules[module] in self.modules:
                self.begun += 0 if self._within else segment.repeat
                self._within.append(module)

    def leave(self, segment: Segment) -> None:
        """What returns after `segment`."""
        for module in segment.leaves if self._within else ():
            if module in self._within:
                self._within.remove(module)

    @property
    def modules(self) -> tuple[str, ...]:
        """Those that are compiled."""
        return self.compiled.modules if self.compiled else ()


@lru_cache(maxsize=1024)
def graphs(compiled: Compiled, call: Call) -> frozenset[tuple[int, tuple[int, ...]]]:
    """The different graphs of compiled modules in `call`: the ops of each, and what they do, by which they differ."""
    following = Compilation(compiled, call)
    found: list[list[Segment]] = []
    for segment in call.segments:
        begun = following.begun
        following.enter(segment)
        if following.begun > begun:
            found.append([])
        if following.open:
            found[-1].append(segment)
        following.leave(segment)
    return frozenset(map(_graph, found))


def _graph(segments: list[Segment]) -> tuple[int, tuple[int, ...]]:
    work = [ops for segment in segments for ops in segment.work]
    return sum(ops.count for ops in work), (sum(ops.flops for ops in work), sum(ops.traffic for ops in work))


def compiling(run: Run) -> float:
    """Seconds in which the first pipeline call compiles: every different graph once, whatever its shapes."""
    if not run.compiled:
        return 0.0
    found = {
        (call.component, *graph)
        for call in _called(run)
        if call.component in run.compiled
        for graph in graphs(run.compiled[call.component], call)
    }
    return START * bool(found) + EACH_OP * sum(count for _, count, _ in found)


def pools(run: Run) -> dict[str, int]:
    """Bytes that CUDA graphs of each component keep for their activations from their first call on, for no one else."""
    calls = ((call, run.compiled.get(call.component)) for call in (_called(run) if run.compiled else ()))
    held: dict[str, int] = {}
    for call, compiled in calls:
        if compiled and compiled.graphs:
            held[call.component] = max(held.get(call.component, 0), call.reserved_alone)
    return held


def _called(run: Run) -> Iterator[Call]:
    return (run.facts.trace.alternative(call, run.variant(call.component)) for call in run.facts.trace.calls)
