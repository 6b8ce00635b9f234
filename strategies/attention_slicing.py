"""A U-Net computes its attention for some of the heads at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.facts import IN_SLICES, Facts
from memplan.run import Run
from memplan.strategy import Decision, Seat, Strategy, Undo

from ._way_back import switched


@dataclass(frozen=True)
class AttentionSlicing(Strategy):
    """A U-Net computes its attention for some of the heads at a time.

    It takes the place of PyTorch's fused attention, which holds no scores at all. It helps only where none of the
    fused kernels runs, such as for bfloat16 before compute capability 8.0: there the scores of every pair of positions
    are held, and slices hold those of some heads.

    Traps: everywhere else it needs more memory and more time, and it is not offered. On Apple's GPUs it slows down
    what PyTorch does well by itself.
    """

    component: str = "unet"

    name: ClassVar[str] = "attention_slicing"

    @property
    def seats(self) -> frozenset[Seat]:
        """How this component computes its attention."""
        return frozenset({Seat(Decision.ATTENTION, self.component)})

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each U-Net whose peak it lowers."""
        for component in facts.model.components:
            strategy = cls(component.name)
            if not strategy.refuses(Run(facts)):
                yield strategy

    def refuses(self, run: Run) -> str | None:
        """Refuses Apple's GPUs, components that cannot, and those whose peak it does not lower."""
        facts = run.facts
        if facts.machine.gpu and facts.machine.gpu.kind == "mps":
            return "on Apple's GPUs PyTorch's own attention is faster and holds no more"
        lack = facts.model.component(self.component).lack("attention_slicing")
        if lack:
            return lack
        failure = facts.trace.failure(self.component, IN_SLICES)
        if failure:
            return f"{self.component} fails with its attention in slices: {failure}"
        calls = [call for call in facts.trace.calls if call.component == self.component]
        sliced = (facts.trace.alternative(call, frozenset({IN_SLICES})) for call in calls)
        if any(one.activations < other.activations for one, other in zip(sliced, calls, strict=True)):
            return None
        return f"it would not lower the peak of {self.component}, which is not in the scores of its attention"

    def redraw(self, run: Run) -> Run:
        """Its calls compute attention in slices."""
        return run.vary(self.component, IN_SLICES)

    def apply(self, pipe: Any, device: str) -> Undo:
        """Gives each attention the library's sliced processor; the way back puts the former ones back."""
        part = getattr(pipe, self.component)
        return switched(part.modules(), lambda: part.set_attention_slice("auto"))

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line."""
        return (f'pipe.{self.component}.set_attention_slice("auto")',)
