"""What techniques share that have a component called in another way than the pipeline calls it."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Self

from memplan.facts import Facts
from memplan.run import Run
from memplan.strategy import Decision, Seat, Strategy

from .refusals import willing


class OtherWay(Strategy):
    """Has the calls of `component` made in another `way`; its weights stay as they are.

    `lacks` is how facts name the technique where the component does without, `fails` what to say where it breaks.
    """

    component: str

    decision: ClassVar[Decision]
    lacks: ClassVar[str]
    fails: ClassVar[str]

    @property
    @abstractmethod
    def way(self) -> str:
        """How the dry run names such calls."""

    @property
    def seats(self) -> frozenset[Seat]:
        """How this component is called."""
        return frozenset({Seat(self.decision, self.component)})

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each component that it helps."""
        yield from willing((cls(component.name) for component in facts.model.components), facts)  # type: ignore[call-arg]

    def helps(self, run: Run) -> bool:
        """Whether it changes something for the better: what the dry run found to change nothing is in no way of it."""
        return self.way in run.facts.trace.ways(self.component)

    @abstractmethod
    def idle(self, run: Run) -> str:
        """The sentence for a component that it does not help."""

    def refuses(self, run: Run) -> str | None:
        """Refuses components that lack it, fail in it, or are not helped by it."""
        lack = run.facts.model.component(self.component).lack(self.lacks)
        failure = run.facts.trace.failure(self.component, *run.variant(self.component), self.way)
        if lack or failure:
            return lack or f"{self.component} {self.fails}: {failure}"
        return None if self.helps(run) else self.idle(run)

    def redraw(self, run: Run) -> Run:
        """Its calls are made that way."""
        return run.vary(self.component, self.way)
