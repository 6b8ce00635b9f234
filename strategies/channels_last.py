"""Images and the filters of 2D convolutions lie in memory pixel by pixel, with their channels together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

from memplan.facts import CHANNELS_LAST, Facts
from memplan.run import Run
from memplan.strategy import Decision, Switch, Undo

from .live.layout import channels_last
from .rules.other_way import OtherWay


@dataclass(frozen=True)
class ChannelsLast(OtherWay):
    """A U-Net or an image VAE keeps its filters channels-last, and its convolutions give images laid out like that.

    cuDNN's kernels for half precision want that layout, and copy images and results that have another. Where the
    filters have it, results need no copy; group normalisation still makes one of its own. Memory and copies are
    counted as the dry run finds them. How much faster the kernels themselves are depends on card and shape and is not
    known here: seconds are those of the same kernels without the copies. So it is never picked by itself, and a plan
    that names it has a dry run of its own made. The weights take the same bytes, and pictures are the same up to the
    rounding of other kernels.

    Traps: it does nothing for transformers and the VAEs of videos, which are made of other layers.
    """

    component: str = "vae"

    name: ClassVar[str] = "channels_last"
    opt_in: ClassVar[str] = "what it gains depends on kernels whose speed in this layout is not known"
    known_as: ClassVar[tuple[str, ...]] = ("memory_format", "nhwc")

    decision: ClassVar[Decision] = Decision.LAYOUT
    lacks: ClassVar[str] = "channels_last"
    fails: ClassVar[str] = "fails with its channels last"

    @property
    def way(self) -> str:
        """How the dry run names calls with filters of this layout."""
        return CHANNELS_LAST

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each component that is called and made of 2D convolutions."""
        for part in facts.model.components:
            if not part.lack(cls.lacks) and facts.trace.phases(part.name):
                yield cls(part.name)

    @classmethod
    def switches(cls, settings: Mapping[str, Any]) -> Mapping[str, Switch]:
        """The one way there is."""
        return {CHANNELS_LAST: partial(channels_last, keep=True)}

    def idle(self, run: Run) -> str:
        """For what is not called, or was not dry-run so."""
        if not run.facts.trace.phases(self.component):
            return f"{self.component} is not called"
        return f"{self.name} needs a dry run of its own: price the plan that names it"

    def apply(self, pipe: Any, device: str) -> Undo:
        """Lays the filters out anew; the way back gives each the strides that it had."""
        return channels_last(getattr(pipe, self.component))

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line."""
        return ("import torch", f"pipe.{self.component}.to(memory_format=torch.channels_last)")
