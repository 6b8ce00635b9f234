"""Every N-th block of a model that is trained keeps no activations, and computes them again in the backward."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

from memplan.facts import CHECKPOINTED, Facts, Purpose
from memplan.run import Run
from memplan.strategy import Decision, Switch, Undo

from .live.checkpoints import checkpointed
from .rules.other_way import OtherWay

INTERVALS = (1, 2, 4, 8, 16, 32)
"""Those that are weighed where nobody names one."""


@dataclass(frozen=True)
class GradientCheckpointing(OtherWay):
    """Every `interval`-th block keeps no activations in a training step, and computes them again in the backward.

    It is for training: 1 checkpoints every block and keeps least, larger intervals compute less again and keep more.
    Every N-th block saves about 1/N of what all blocks save, and costs about 1/N of their forward. Gradients are those
    without it: random numbers are drawn again as they were. Blocks are what diffusers and transformers take for such in
    the model, in a model of neither the modules of its outermost lists; the first one is always among those chosen,
    as it waits longest for its backward.

    Traps: a backward holds the activations of one block while it computes them again, so that the peak does not fall
    below that; a model without lists of blocks is refused. In transformers it needs train().
    """

    component: str
    interval: int = 1

    name: ClassVar[str] = "gradient_checkpointing"
    known_as: ClassVar[tuple[str, ...]] = ("activation_checkpointing", "checkpointing")
    purpose: ClassVar[Purpose] = Purpose.TRAINING

    decision: ClassVar[Decision] = Decision.CHECKPOINTS
    lacks: ClassVar[str] = "gradient_checkpointing"
    fails: ClassVar[str] = "cannot be checkpointed"

    @property
    def way(self) -> str:
        """How the dry run names steps with so many blocks checkpointed."""
        return _way(self.interval)

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each interval that was followed and changes something, and where every block fails that."""
        for component in facts.model.components:
            ways = (way.partition(":") for way in facts.trace.ways(component.name))
            yield from (cls(component.name, n) for n in sorted(int(n) for name, _, n in ways if name == CHECKPOINTED))
            if facts.trace.failure(component.name, _way(1)):
                yield cls(component.name)

    @classmethod
    def switches(cls, settings: Mapping[str, Any]) -> Mapping[str, Switch]:
        """The interval that is asked for, or all that are weighed."""
        intervals = [settings["interval"]] if "interval" in settings else INTERVALS
        return {_way(interval): partial(checkpointed, interval=interval) for interval in intervals}

    def idle(self, run: Run) -> str:
        """For an interval that holds as much as a smaller one, or was not dry-run."""
        return (
            f"{self.name} with interval={self.interval} holds what another interval does, or needs a dry run of its "
            "own, which a plan that names it has made"
        )

    def apply(self, pipe: Any, device: str) -> Undo:
        """Has the blocks checkpointed wherever gradients are enabled. Raises BadInput for a model without blocks."""
        return checkpointed(getattr(pipe, self.component), self.interval)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """memplan's own call, as the libraries checkpoint every block or, in transformers, layers of one kind."""
        return (
            "from memplan.strategies import GradientCheckpointing",
            f'GradientCheckpointing("{self.component}", interval={self.interval}).apply(pipe, "{device}")',
        )


def _way(interval: int) -> str:
    return f"{CHECKPOINTED}:{interval}"
