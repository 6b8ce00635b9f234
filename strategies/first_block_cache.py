"""First Block Cache: a step whose first block changes little skips the others."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from memplan.run import Kept, Shortened

from .live.step_cache import Enabled
from .rules.step_cache import StepCache, Stepping


@dataclass(frozen=True)
class FirstBlockCache(Enabled, StepCache):
    """First Block Cache: where the first block changes its input about as at the last computed step, the others rest.

    What all of them added then is added again. Whether a step is skipped depends on the picture: the change of the
    first block's residual must be at most `threshold` of it. So how much time it saves is not known beforehand, and the
    seconds are those without any skipped step, unless `share` says which share of the steps you expect to be skipped.

    It keeps five tensors for each context: three of the size of the hidden states, and two of that of the text's where
    blocks return them. Published of ParaAttention, from which the library has it: FLUX.1-dev at 28 steps on an L20 in
    17.0 s instead of 26.4, with a threshold of 0.08 (huggingface.co/docs/diffusers/optimization/para_attn).

    Traps: it changes the picture; the host waits for the device at each step to compare; it needs the pipeline to name
    the context of each call.
    """

    threshold: float = 0.05
    share: float = 0.0

    name: ClassVar[str] = "first_block_cache"
    known_as: ClassVar[tuple[str, ...]] = ("fbcache", "fbc", "teacache", "para_attention")
    config_class: ClassVar[str] = "FirstBlockCacheConfig"
    opt_in: ClassVar[str] = (
        "it changes the picture, by how much is not predicted; nor is which steps it skips, of which share=0.4 tells it"
    )
    uncompiled: ClassVar[str] = (
        "its first block asks the host at each step, and memplan has not followed compilers there"
    )

    @property
    def invalid(self) -> str | None:
        """The sentence about settings out of range."""
        if self.threshold < 0:
            return "threshold is 0 or more"
        return None if 0 <= self.share < 1 else "share is the part of the steps that you expect to be skipped: 0 to 1"

    @property
    def idle(self) -> str:
        """Which steps it skips nobody knows beforehand."""
        return (
            f"which steps {self.name} skips depends on the picture, and none is counted: give the share of the steps "
            "that you expect to be skipped, as share=0.4"
        )

    def unfit(self, stepping: Stepping) -> str | None:
        """Refuses blocks of which the last returns another number of tensors than the first, which hooks subtract."""
        head, *_, tail = stepping.hooks.modules
        one, other = len(stepping.call.returned(head)), len(stepping.call.returned(tail))
        if one != other:
            return f"{head} returns {one} tensors and {tail} {other}, which diffusers' {self.name} cannot subtract"
        return super().unfit(stepping)

    def forwards(self, stepping: Stepping) -> Iterator[Shortened]:
        """What `FBCHeadBlockHook` and `FBCBlockHook` keep; the expected share of skipped steps is at the end."""
        head, *others = stepping.hooks.modules
        residual = Kept(head, (stepping.hooks.hidden,), anew=True)
        kept = (Kept(head), residual, Kept(others[-1], anew=True))
        left = Counter(turn.context for turn in stepping.turns)
        skipped = {context: int(self.share * count) for context, count in left.items()}
        for turn in stepping.turns:
            hit = left[turn.context] <= skipped[turn.context]
            left[turn.context] -= 1
            yield Shortened(tuple(others) if hit else (), kept, turn.context or "")

    @property
    def settings(self) -> dict[str, Any]:
        """The threshold; the share is memplan's own."""
        return {"threshold": self.threshold}
