"""What techniques share that place every component of a pipeline at once."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from memplan.facts import Component, Facts, Model
from memplan.run import Placement, Resident, Run
from memplan.strategy import Decision, Seat, Strategy

from .refusals import frees_nothing, willing


@dataclass(frozen=True)
class WholePipeline(Strategy):
    """Puts every component `away`, except those that the pipeline's class keeps on the device."""

    components: tuple[str, ...]

    away: ClassVar[Placement]

    @property
    def seats(self) -> frozenset[Seat]:
        """Where every component lives."""
        return frozenset(Seat(Decision.PLACEMENT, component) for component in self.components)

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One, for pipelines that can."""
        yield from willing([cls(tuple(component.name for component in facts.model.components))], facts)

    @staticmethod
    @abstractmethod
    def stay(model: Model) -> tuple[str, ...]:
        """The components that the class of `model` keeps on the device."""

    @abstractmethod
    def lack(self, run: Run, component: Component) -> str | None:
        """The sentence that says why `component` can't be put away, or None when it can."""

    def refuses(self, run: Run) -> str | None:
        """Refuses parts of a pipeline, devices on which it frees nothing, and components that can't be put away."""
        model, technique = run.facts.model, self.name.replace("_", " ")
        if model.lack(self.name):
            return model.lack(self.name)
        left_out = [c.name for c in model.components if c.name not in self.components]
        if left_out:
            return f"{technique} takes every component of the pipeline; {', '.join(left_out)} would be left out"
        moved = (c for c in model.components if c.name not in self.stay(model))
        return frees_nothing(run) or next(filter(None, (self.lack(run, component) for component in moved)), None)

    def redraw(self, run: Run) -> Run:
        """Every component is away, except those that stay."""
        stay = self.stay(run.facts.model)
        for component in self.components:
            run = run.place(component, Resident() if component in stay else self.away)
        return run
