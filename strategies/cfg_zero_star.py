"""Guidance as CFG-Zero* has it: scaled to what both passes have in common, and none at all in the first steps."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.errors import BadInput
from memplan.facts import FREED, ZEROED, Facts, not_matching_flows
from memplan.run import Run
from memplan.strategy import Undo

from .live.batches import Given
from .live.front_door import Forward, hung
from .live.zero_star import (
    CONDITIONAL_FIRST,
    TWO_CALLS,
    UNCONDITIONAL_FIRST,
    ZeroStar,
    both_scaled,
    scaled,
)
from .rules.guidance import Guided, denoises

ORDERS = {
    **dict.fromkeys(("StableDiffusion3Pipeline", "SanaPipeline", "LTXPipeline"), UNCONDITIONAL_FIRST),
    **dict.fromkeys(("AuraFlowPipeline", "MochiPipeline"), UNCONDITIONAL_FIRST),
    "ZImagePipeline": CONDITIONAL_FIRST,
    **dict.fromkeys(("WanPipeline", "QwenImagePipeline", "FluxPipeline", "Flux2KleinPipeline"), TWO_CALLS),
    **dict.fromkeys(("ChromaPipeline", "Lumina2Pipeline", "HunyuanVideoPipeline"), TWO_CALLS),
    "HunyuanVideo15Pipeline": TWO_CALLS,
}
"""The pipelines that guide velocities as they come from the denoiser, and how they make both passes."""
NORMED = ("QwenImagePipeline", "Lumina2Pipeline")
"""Those that divide what they guide by its norm, which must not be that of zeros."""


@dataclass(frozen=True)
class CfgZeroStar(Guided):
    """Guidance as CFG-Zero* has it: scaled to what both passes have in common, and none at all in the first steps.

    The prediction without the prompt is multiplied, sample by sample, by <cond, uncond> / ||uncond||² before the
    pipeline guides with it. In the first `zero_init` steps the denoiser is not called and the velocity is zero, which
    spares one forward each, or two where both passes are calls of their own. The paper has 1, or 4 % of the steps.
    It is made where the denoiser is called, for pipelines that guide in one batch and for those that guide with two
    calls.

    It changes pictures on purpose; that is no loss of precision, and the bill shows none. It is for flow matching only.
    Pipelines that divide by the norm of what they guide, as QwenImage's, take zero_init=0. Of those whose denoisers
    take turns name each one; only the first has steps to spare.

    Traps: the guidance scale means what it did, but pictures are less saturated; a call without guidance is refused.
    """

    component: str
    zero_init: int = 1

    name: ClassVar[str] = "cfg_zero_star"
    opt_in: ClassVar[str] = "it changes the picture"
    known_as: ClassVar[tuple[str, ...]] = ("cfg_zero", "cfg_zero*")

    lacks: ClassVar[str] = "cfg_zero_star"
    fails: ClassVar[str] = "cannot be guided by CFG-Zero*"

    @property
    def way(self) -> str:
        """How the dry run names calls whose result is scaled."""
        return ZEROED

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each denoiser of a pipeline that may."""
        kind = facts.model.class_name
        for part in facts.model.components if not _unfit(facts) else ():
            if denoises(facts, part):
                yield cls(part.name, 0 if kind in NORMED else cls.zero_init)

    @classmethod
    def switches(cls, settings: Mapping[str, Any]) -> Mapping[str, Callable[[Any], Undo]]:
        """One way: each result scaled."""
        return {ZEROED: _always_scaled}

    def refuses(self, run: Run) -> str | None:
        """Refuses pipelines that guide otherwise, schedulers of other models, and zeros that would be divided by."""
        unfit = _unfit(run.facts) or _no_steps(run.facts.model.class_name, self.zero_init)
        return f"{self.name}: {unfit}" if unfit else super().refuses(run)

    def redraw(self, run: Run) -> Run:
        """Its calls are made that way, and the first ones not at all."""
        run = super().redraw(run)
        calls = self.zero_init * (2 if ORDERS.get(run.facts.model.class_name) == TWO_CALLS else 1)
        return run.vary(self.component, f"{FREED}:{calls}") if calls and self._leads(run.facts) else run

    def _leads(self, facts: Facts) -> bool:
        """Whether the first step is this denoiser's."""
        called = (facts.trace.calls[step.call].component for step in facts.trace.timeline)
        parts = {part.name: part for part in facts.model.components}
        return next((n for n in called if n in parts and denoises(facts, parts[n])), None) == self.component

    def apply(self, pipe: Any, device: str) -> Undo:
        """Stands before the component's forward. Raises BadInput for pipelines and schedulers that it is not for."""
        part, kind = getattr(pipe, self.component), type(pipe).__name__
        unfit = _unknown(kind) or not_matching_flows(pipe.scheduler) or _no_steps(kind, self.zero_init)
        if unfit:
            raise BadInput(f"{self.name}: {unfit}")

        def wrapped(forward: Forward) -> Forward:
            return ZeroStar(part, forward, ORDERS[kind], self.zero_init, lambda: _step(pipe.scheduler))

        return hung(part, str(self), wrapped)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """memplan's own call, as diffusers has it for a guider alone."""
        settings = f'"{self.component}"' + (f", {self.zero_init}" if self.zero_init != type(self).zero_init else "")
        return ("from memplan.strategies import CfgZeroStar", f'CfgZeroStar({settings}).apply(pipe, "{device}")')


def _unfit(facts: Facts) -> str | None:
    """Why the pipeline cannot be guided so, whatever the settings."""
    return _unknown(facts.model.class_name) or facts.model.lack(CfgZeroStar.lacks)


def _unknown(kind: str) -> str | None:
    if kind in ORDERS:
        return None
    return f"how {kind} guides is not known to memplan; it is for {', '.join(sorted(ORDERS))}"


def _no_steps(kind: str, zeros: int) -> str | None:
    if zeros < 0:
        return f"zero_init is 0 or more steps, not {zeros}"
    return f"{kind} divides by the norm of what it guides: set zero_init=0" if zeros and kind in NORMED else None


def _step(scheduler: Any) -> int:
    """How many steps of this generation were made."""
    return (scheduler.step_index or 0) - (scheduler.begin_index or 0) if scheduler.step_index is not None else 0


def _always_scaled(part: Any) -> Undo:
    """Has the result of each call of `part` scaled by halves, or by itself where it has none; the value undoes it."""

    def wrapped(forward: Forward) -> Forward:
        def scaling(*args: Any, **kwargs: Any) -> Any:
            given, result = Given.of(forward, args, kwargs), forward(*args, **kwargs)
            return scaled(result, result) if given.size % 2 else both_scaled(given, result, first=True)

        return scaling

    return hung(part, CfgZeroStar.name, wrapped)
