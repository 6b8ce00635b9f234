"""A U-Net computes its attention for some of the heads at a time."""

from dataclasses import dataclass
from typing import Any, ClassVar

from memplan.facts import IN_SLICES
from memplan.run import Run
from memplan.strategy import Decision, Undo

from .live.way_back import switched
from .rules.other_way import OtherWay


@dataclass(frozen=True)
class AttentionSlicing(OtherWay):
    """A U-Net computes its attention for some of the heads at a time.

    It takes the place of PyTorch's fused attention, which holds no scores at all. It helps only where none of the
    fused kernels runs, such as for bfloat16 before compute capability 8.0: there the scores of every pair of positions
    are held, and slices hold those of some heads.

    Traps: everywhere else it needs more memory and more time, and it is not offered. On Apple's GPUs it slows down
    what PyTorch does well by itself.
    """

    component: str = "unet"

    name: ClassVar[str] = "attention_slicing"
    midway: ClassVar[bool] = True

    decision: ClassVar[Decision] = Decision.ATTENTION
    lacks: ClassVar[str] = "attention_slicing"
    fails: ClassVar[str] = "fails with its attention in slices"

    @property
    def way(self) -> str:
        """How the dry run names calls with attention in slices."""
        return IN_SLICES

    def refuses(self, run: Run) -> str | None:
        """Refuses Apple's GPUs, and what every other way of calling refuses."""
        gpu = run.facts.machine.gpu
        if gpu and gpu.kind == "mps":
            return "on Apple's GPUs PyTorch's own attention is faster and holds no more"
        return super().refuses(run)

    def helps(self, run: Run) -> bool:
        """Whether it lowers the peak of a call."""
        calls = [call for call in run.facts.trace.calls if call.component == self.component]
        sliced = (run.facts.trace.alternative(call, frozenset({IN_SLICES})) for call in calls)
        return any(one.activations < other.activations for one, other in zip(sliced, calls, strict=True))

    def idle(self, run: Run) -> str:
        """For components whose peak is elsewhere."""
        return f"it would not lower the peak of {self.component}, which is not in the scores of its attention"

    def apply(self, pipe: Any, device: str) -> Undo:
        """Gives each attention the library's sliced processor; the way back puts the former ones back."""
        part = getattr(pipe, self.component)
        return switched(part.modules(), lambda: part.set_attention_slice("auto"))

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line."""
        return (f'pipe.{self.component}.set_attention_slice("auto")',)
