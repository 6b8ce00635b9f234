"""A VAE works on one picture after the other."""

from dataclasses import dataclass
from typing import Any, ClassVar

from memplan.facts import SLICED
from memplan.run import Run
from memplan.strategy import Decision, Undo

from .live.way_back import switched
from .rules.other_way import OtherWay


@dataclass(frozen=True)
class VaeSlicing(OtherWay):
    """A VAE encodes and decodes the pictures of a batch one after the other.

    It lowers the peak of the decode to that of one picture and the finished ones, where several are made in one call
    and the decode is the highest peak. The pictures are the same up to the rounding of kernels that work on one in
    place of several.

    Traps: nothing changes for a single picture or video; that is what `vae_tiling` is for.
    """

    component: str = "vae"

    name: ClassVar[str] = "vae_slicing"
    known_as: ClassVar[tuple[str, ...]] = ("slicing", "enable_vae_slicing")
    midway: ClassVar[bool] = True

    decision: ClassVar[Decision] = Decision.SLICES
    lacks: ClassVar[str] = "slicing"
    fails: ClassVar[str] = "fails slice by slice"

    @property
    def way(self) -> str:
        """How the dry run names calls with one picture at a time."""
        return SLICED

    def idle(self, run: Run) -> str:
        """For calls with a single picture."""
        return f"slices change nothing: {self.component} is given no more than one picture or video at a time"

    def apply(self, pipe: Any, device: str) -> Undo:
        """Turns slicing on; the way back gives the setting its former value."""
        part = getattr(pipe, self.component)
        return switched([part], part.enable_slicing)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line."""
        return (f"pipe.{self.component}.enable_slicing()",)
