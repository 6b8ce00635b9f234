"""One component lives on the device."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.facts import Facts
from memplan.run import Resident, Run
from memplan.strategy import Decision, Seat, Strategy, Undo

from .live.way_back import done, homes


@dataclass(frozen=True)
class OnGpu(Strategy):
    """A component stays on the device from before the call until after it.

    The fastest place for weights, and exact: nothing is copied while the pipeline runs. It costs the whole size of the
    component for the whole call, in phases that do not use it too.
    """

    component: str

    name: ClassVar[str] = "on_gpu"
    frees_host: ClassVar[bool] = True

    @property
    def seats(self) -> frozenset[Seat]:
        """Where this component lives."""
        return frozenset({Seat(Decision.PLACEMENT, self.component)})

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each component."""
        yield from (cls(component.name) for component in facts.model.components)

    def redraw(self, run: Run) -> Run:
        """The component is resident."""
        return run.place(self.component, Resident())

    def apply(self, pipe: Any, device: str) -> Undo:
        """Moves the component; the way back moves each weight to where it was."""
        part = getattr(pipe, self.component)
        return done(lambda: part.to(device), homes(part))

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line."""
        return (f'pipe.{self.component}.to("{device}")',)
