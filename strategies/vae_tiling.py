"""A VAE works on one tile after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.facts import Facts
from memplan.run import Run
from memplan.strategy import Decision, Seat, Strategy, Undo

TILED = "tiled"


@dataclass(frozen=True)
class VaeTiling(Strategy):
    """A VAE encodes and decodes overlapping tiles, one after the other, and blends them.

    It lowers the peak of the decode to about that of one tile and the finished picture, where the decode is the
    highest peak: large pictures and videos. It costs time for the overlaps, and exactness: each tile is normalised by
    itself, so colours may drift a little from tile to tile.

    Traps: nothing changes while the picture is no larger than one tile, which for many image VAEs is 1024 x 1024.
    """

    component: str = "vae"

    name: ClassVar[str] = "vae_tiling"

    @property
    def seats(self) -> frozenset[Seat]:
        """How this component is called."""
        return frozenset({Seat(Decision.CALLS, self.component)})

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each VAE that it would change."""
        for component in facts.model.components:
            strategy = cls(component.name)
            if not strategy.refuses(Run(facts)):
                yield strategy

    def refuses(self, run: Run) -> str | None:
        """Refuses components without tiles, and pictures of a single one."""
        lack = run.facts.model.component(self.component).lack("tiling")
        if lack:
            return lack
        trace = run.facts.trace
        calls = [call for call in trace.calls if call.component == self.component]
        if all(trace.alternative(call, TILED) is call for call in calls):
            return f"tiling changes nothing at this size: {self.component} is given no more than one tile at a time"
        return None

    def redraw(self, run: Run) -> Run:
        """Its calls run in tiles."""
        return run.vary(self.component, TILED)

    def apply(self, pipe: Any, device: str) -> Undo:
        """Turns tiling on; the way back gives every setting that this changed its former value."""
        part = getattr(pipe, self.component)
        before = dict(vars(part))
        part.enable_tiling()
        changed = [name for name, value in vars(part).items() if name not in before or before[name] is not value]

        def undo() -> None:
            for name in changed:
                del vars(part)[name]
            vars(part).update({name: before[name] for name in changed if name in before})

        return undo

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line."""
        return (f"pipe.{self.component}.enable_tiling()",)
