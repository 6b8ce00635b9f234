"""A VAE works on one picture after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.facts import SLICED, Facts
from memplan.run import Run
from memplan.strategy import Decision, Seat, Strategy, Undo

from ._way_back import switched


@dataclass(frozen=True)
class VaeSlicing(Strategy):
    """A VAE encodes and decodes the pictures of a batch one after the other.

    It lowers the peak of the decode to that of one picture and the finished ones, where several are made in one call
    and the decode is the highest peak. The pictures are the same up to the rounding of kernels that work on one in
    place of several.

    Traps: nothing changes for a single picture or video; that is what `vae_tiling` is for.
    """

    component: str = "vae"

    name: ClassVar[str] = "vae_slicing"

    @property
    def seats(self) -> frozenset[Seat]:
        """How many pictures this component is given at a time."""
        return frozenset({Seat(Decision.SLICES, self.component)})

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each VAE that is given several pictures at a time."""
        for component in facts.model.components:
            if SLICED in facts.trace.ways(component.name):
                yield cls(component.name)

    def refuses(self, run: Run) -> str | None:
        """Refuses components without slices, and calls with a single picture."""
        facts = run.facts
        lack = facts.model.component(self.component).lack("slicing")
        if lack:
            return lack
        failure = facts.trace.failure(self.component, *run.variant(self.component), SLICED)
        if failure:
            return f"{self.component} fails slice by slice: {failure}"
        if SLICED in facts.trace.ways(self.component):
            return None
        return f"slices change nothing: {self.component} is given no more than one picture or video at a time"

    def redraw(self, run: Run) -> Run:
        """Its calls run slice by slice."""
        return run.vary(self.component, SLICED)

    def apply(self, pipe: Any, device: str) -> Undo:
        """Turns slicing on; the way back gives the setting its former value."""
        part = getattr(pipe, self.component)
        return switched([part], part.enable_slicing)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line."""
        return (f"pipe.{self.component}.enable_slicing()",)
