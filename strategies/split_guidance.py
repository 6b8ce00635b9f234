"""A denoiser that is given the passes of guidance as one batch makes them one after the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from memplan.errors import BadInput
from memplan.facts import HALVED
from memplan.strategy import Undo

from .live.batches import Given, joined
from .live.front_door import Forward, Once, hung
from .rules.guidance import Guided


@dataclass(frozen=True)
class SplitGuidance(Guided):
    """A denoiser that is given the passes of guidance as one batch makes them one after the other.

    It is for pipelines that guide in one batch, as those of SDXL, SD3, PixArt and CogVideoX do. The batch is halved
    where it comes in, and what the halves give is put together again: about half the activations of the denoiser. The
    samples of a batch know nothing of each other, so the result is the same up to the last bits. `component` names the
    denoiser.

    It costs little time where each half keeps the device busy, as large pictures and videos do. Weights that are
    streamed or offloaded in groups come twice, once for each half. A batch of an odd size stays whole.

    Traps: a step cache tells the passes apart and is refused; a convolution may hold more for one sample than for
    two, which the dry run shows; where weights and not activations take the room, it frees little.
    """

    component: str

    name: ClassVar[str] = "split_guidance"
    opt_in: ClassVar[str] = "its calls are dry-run only where it is named"
    known_as: ClassVar[tuple[str, ...]] = ("split_cfg", "sequential_cfg")

    lacks: ClassVar[str] = "split_guidance"
    fails: ClassVar[str] = "cannot be called with half a batch"

    @property
    def way(self) -> str:
        """How the dry run names calls of which each half is made by itself."""
        return HALVED

    @classmethod
    def switches(cls, settings: Mapping[str, Any]) -> Mapping[str, Callable[[Any], Undo]]:
        """One way: in halves, or not at all."""
        return {HALVED: partial(halved, strict=True)}

    def apply(self, pipe: Any, device: str) -> Undo:
        """Stands before the component's forward. Raises BadInput beside a step cache or another such technique."""
        return halved(getattr(pipe, self.component))

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """memplan's own call, as diffusers has none."""
        return (
            "from memplan.strategies import SplitGuidance",
            f'SplitGuidance("{self.component}").apply(pipe, "{device}")',
        )


def halved(part: Any, *, strict: bool = False) -> Undo:
    """Has each call of `part` made in two halves, and a batch of an odd size as it is, or refused if `strict`."""
    say = Once()

    def wrapped(forward: Forward) -> Forward:
        def in_halves(*args: Any, **kwargs: Any) -> Any:
            given = Given.of(forward, args, kwargs)
            half, odd = divmod(given.size, 2)
            if odd or not half:
                sentence = f"{type(part).__name__} is given a batch of {given.size}, which has no halves"
                if strict:
                    raise BadInput(sentence)
                say(f"split_guidance: {sentence}")
                return forward(*args, **kwargs)
            halves = (given.samples(0, half), given.samples(half, 2 * half))
            return joined([each.passed_to(forward) for each in halves])

        return in_halves

    return hung(part, SplitGuidance.name, wrapped)
