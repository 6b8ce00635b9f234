"""MagCache: steps are skipped while the magnitudes of their residuals are known to change little."""

import struct
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from memplan.facts import Facts
from memplan.run import Kept, Run, Shortened

from .live.step_cache import Enabled
from .rules.step_cache import StepCache, Stepping

CONFIG = "MagCacheConfig"


@dataclass(frozen=True)
class MagCache(Enabled, StepCache):
    """MagCache: all blocks rest at steps whose residual is known to be about as large as that of the step before.

    `ratios` say by how much the residual's magnitude changes from step to step; none are the library's own, which it
    has for FLUX.1. Skipping goes on while the error that they add up to is at most `threshold`, for at most `most`
    steps in a row, and not in the first `retained` share of the `steps`. So it is known beforehand which are skipped.

    It keeps two tensors of the size of the hidden states for each context, and saves the time of all blocks. One of the
    two is what the first block is given: where that is a view of a larger tensor, the rest of it is not counted.

    Traps: it changes the picture; `steps` must be those of the call, which a plan is checked for; ratios are those of
    one model and scheduler. For another, run once with MagCacheConfig(calibrate=True), which prints them.
    """

    steps: int = 28
    threshold: float = 0.06
    most: int = 3
    retained: float = 0.2
    ratios: tuple[float, ...] = ()

    name: ClassVar[str] = "magcache"
    known_as: ClassVar[tuple[str, ...]] = ("mag_cache",)
    config_class: ClassVar[str] = CONFIG
    apart: ClassVar[bool] = False
    uncompiled: ClassVar[str] = "the hooks of magcache keep the compiler out of every block (torch.compiler.disable)"

    @property
    def imports(self) -> tuple[str, ...]:  # type: ignore[override]
        """The library's own ratios, where they are used."""
        return () if self.ratios else ("from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS",)

    @classmethod
    def suited(cls, component: str, facts: Facts) -> Self:
        """As many steps as the call has."""
        return cls(component, max(_steps(facts, component).values(), default=cls.steps))

    @property
    def invalid(self) -> str | None:
        """The sentence about settings out of range."""
        fitting = self.steps >= 1 and self.most >= 0 and 0 <= self.retained <= 1 and self.threshold >= 0
        return None if fitting else "steps is 1 or more, most and threshold 0 or more, and retained from 0 to 1"

    def refuses(self, run: Run) -> str | None:
        """Refuses other numbers of steps than the call's, and models without ratios, beside what every cache does."""
        steps = set(_steps(run.facts, self.component).values())
        if steps and steps != {self.steps}:
            return f"this call has {' and '.join(map(str, sorted(steps)))} steps: set steps={max(steps)}"
        return super().refuses(run)

    def unfit(self, stepping: Stepping) -> str | None:
        """Refuses models without ratios, and calls whose forwards it would take for steps."""
        if not self.ratios and not stepping.hooks.ratios:
            calibrate = f"{CONFIG}(calibrate=True, num_inference_steps={self.steps})"
            return (
                f"the library has no ratios for this model: give ratios=1.0/…, which one call with "
                f"pipe.{self.component}.enable_cache({calibrate}) prints"
            )
        if stepping.crowded:
            return "the pipeline makes several forwards a step without naming their contexts, and each would be a step"
        return super().unfit(stepping)

    def forwards(self, stepping: Stepping) -> Iterator[Shortened]:
        """The rule of `MagCacheHeadHook`. What the first block is given is as large as its hidden states."""
        hooks = stepping.hooks
        hidden = Kept(hooks.modules[0], (hooks.hidden,), anew=True)
        table = _spread(self.ratios or hooks.ratios, self.steps)
        counts: defaultdict[str | None, _Count] = defaultdict(lambda: _Count(self, table))
        for turn in stepping.turns:
            count = counts[turn.context]
            skipped = count.next()
            kept = (hidden, hidden) if count.step < self.steps else (hidden,)  # after the last the residual is dropped
            yield Shortened(hooks.modules if skipped else (), kept, turn.context or "")

    @property
    def settings(self) -> dict[str, Any]:
        """As the library names them."""
        own = {"mag_ratios": list(self.ratios)} if self.ratios else {}
        return {
            "threshold": self.threshold,
            "max_skip_steps": self.most,
            "retention_ratio": self.retained,
            "num_inference_steps": self.steps,
            **own,
        }

    def live(self, pipe: Any) -> dict[str, Any]:
        """The library's own ratios, where none are given."""
        from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

        return {} if self.ratios else {"mag_ratios": FLUX_MAG_RATIOS}

    @property
    def spelled(self) -> dict[str, str]:
        """The library's own ratios, where none are given."""
        return {} if self.ratios else {"mag_ratios": "FLUX_MAG_RATIOS"}


def _steps(facts: Facts, component: str) -> Counter[str | None]:
    """How many forwards `component` has in each context."""
    return Counter(turn.context for turn in facts.trace.turns if turn.component == component)


@dataclass
class _Count:
    """What `MagCacheState` counts in one context, in the float32 in which the library has its ratios."""

    cache: MagCache
    table: tuple[float, ...]
    step: int = 0
    ratio: float = 1.0
    error: float = 0.0
    row: int = 0
    started: bool = field(default=False)

    def next(self) -> bool:
        """Whether the next step is skipped."""
        skipped = False
        if self.step >= int(self.cache.retained * self.cache.steps + 0.5):
            self.ratio, self.row = _single(self.ratio * self.table[self.step]), self.row + 1
            self.error = _single(self.error + abs(_single(1.0 - self.ratio)))
            within = self.error <= _single(self.cache.threshold) and self.row <= self.cache.most
            skipped = self.started and within
            if not skipped:
                self.ratio, self.error, self.row = 1.0, 0.0, 0
        self.step, self.started = self.step + 1, True
        return skipped


def _spread(ratios: tuple[float, ...], steps: int) -> tuple[float, ...]:
    """`ratios` for so many steps, each the nearest: `nearest_interp` of diffusers/hooks/mag_cache.py, in float32."""
    exact = tuple(map(_single, ratios))
    if len(exact) == steps or not exact:
        return exact
    if steps == 1:
        return exact[-1:]
    scale = _single((len(exact) - 1) / (steps - 1))
    return tuple(exact[round(_single(number * scale))] for number in range(steps))


def _single(value: float) -> float:
    """`value` in float32."""
    return float(struct.unpack("f", struct.pack("f", value))[0])
