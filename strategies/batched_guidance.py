"""A denoiser that is called twice for each step makes both passes of guidance as one batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from memplan.facts import PAIRED
from memplan.strategy import Undo

from .live.batches import Given
from .live.front_door import Forward, hung
from .live.pairs import Pairs, at_once, check
from .rules.guidance import Guided


@dataclass(frozen=True)
class BatchedGuidance(Guided):
    """A denoiser that is called twice for each step makes both passes of guidance as one batch.

    It is for pipelines that guide with two calls, as those of Wan, QwenImage, Chroma, Lumina 2, HunyuanVideo 1.5,
    Cosmos and FLUX with a negative prompt do. Both need the latents and the timestep; what else the second call is
    given, such as embeddings, is known from the step before. So the first step is made in two calls, and each later one
    at once: when the second call comes, its result is there. It is compared with what was foreseen first.

    It saves the time of weights that are read, streamed or offloaded twice, and of kernels too small to keep the device
    busy; about twice the activations of the denoiser are the price. Where the two calls differ in shapes, such as
    prompts of other lengths, where a tensor has one sample for several latents, where a pass is skipped or a step cache
    is on, they are made one after the other, and the log says so once. Wan's and Cosmos' pipelines pad all prompts to
    one length by themselves.

    Traps: attention kernels may round batches of two otherwise, so pictures of one seed drift a little; where the
    device is busy already, it is no faster.
    """

    component: str

    name: ClassVar[str] = "batched_guidance"
    opt_in: ClassVar[str] = "pictures of one seed may drift with it, and its calls are dry-run only where it is named"
    known_as: ClassVar[tuple[str, ...]] = ("batched_cfg", "batch_cfg")

    lacks: ClassVar[str] = "batched_guidance"
    fails: ClassVar[str] = "cannot make both passes at once"

    @property
    def way(self) -> str:
        """How the dry run names calls of which each makes both passes."""
        return PAIRED

    @classmethod
    def switches(cls, settings: Mapping[str, Any]) -> Mapping[str, Callable[[Any], Undo]]:
        """One way: each call as if the next one, with inputs of the same shapes, were made with it."""
        return {PAIRED: _doubled}

    def apply(self, pipe: Any, device: str) -> Undo:
        """Stands before the component's forward. Raises BadInput beside a step cache or another such technique."""
        part = getattr(pipe, self.component)
        return hung(part, self.name, lambda forward: Pairs(self.name, part, forward))

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """memplan's own call, as diffusers has none."""
        return (
            "from memplan.strategies import BatchedGuidance",
            f'BatchedGuidance("{self.component}").apply(pipe, "{device}")',
        )


def _doubled(part: Any) -> Undo:
    """Has each call of `part` made with itself; the value undoes it."""

    def wrapped(forward: Forward) -> Forward:
        def doubled(*args: Any, **kwargs: Any) -> Any:
            given = Given.of(forward, args, kwargs)
            check(given, given)
            return at_once(forward, given, given)[0]

        return doubled

    return hung(part, BatchedGuidance.name, wrapped)
