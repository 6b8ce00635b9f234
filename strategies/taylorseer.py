"""TaylorSeer: attention outputs of some steps are extrapolated from earlier ones."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from memplan.run import Kept, Shortened

from .live.step_cache import Enabled
from .rules.step_cache import StepCache, Stepping

DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class TaylorSeer(Enabled, StepCache):
    """TaylorSeer: what attention gives at most steps is extrapolated from the steps before, not computed.

    Of `interval` steps one is computed, and the first `warmup` all are. In between each attention module gives the
    Taylor series of what it gave before, up to `order`; `lite` does that for the last projection alone, and skips all
    blocks. It saves the skipped modules' time, and the rest of the model runs as before.

    It keeps `order` + 1 tensors of the size of each module's output in `dtype`, for each context: gigabytes for large
    pictures, and little with `lite`.

    Traps: it changes the picture; few steps leave nothing to skip; in many classes the library's patterns find no
    attention, and only `lite` does something.
    """

    interval: int = 5
    warmup: int = 3
    until: int | None = None
    order: int = 1
    dtype: str = DTYPES[0]
    lite: bool = False

    name: ClassVar[str] = "taylorseer"
    config_class: ClassVar[str] = "TaylorSeerCacheConfig"
    imports: ClassVar[tuple[str, ...]] = ("import torch",)

    @property
    def technique(self) -> str:
        """How facts name it: `lite` hooks other modules."""
        return f"{self.name} lite" if self.lite else self.name

    @property
    def invalid(self) -> str | None:
        """The sentence about settings out of range: without a first step there is nothing to extrapolate."""
        if min(self.interval, self.warmup) < 1 or self.order < 0:
            return "interval and warmup are 1 or more, and order 0 or more"
        return None if self.dtype in DTYPES else f"dtype is {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, not {self.dtype}"

    def forwards(self, stepping: Stepping) -> Iterator[Shortened]:
        """The rule of `TaylorSeerCacheHook`: each computed step gives the series one more order, up to the last."""
        hooks = stepping.hooks
        modules = [path for path, kind in zip(hooks.modules, hooks.kinds, strict=True) if kind == "factors"]
        steps: defaultdict[str | None, int] = defaultdict(int)
        updates: defaultdict[str | None, int] = defaultdict(int)
        for turn in stepping.turns:
            computed = self.computes(steps[turn.context])
            steps[turn.context] += 1
            updates[turn.context] += computed
            orders = range(min(updates[turn.context], self.order + 1))
            kept = tuple(Kept(path, anew=order > 0, dtype=self.dtype) for path in modules for order in orders)
            yield Shortened(() if computed else hooks.modules, kept, turn.context or "")

    def computes(self, step: int) -> bool:
        """Whether step number `step` of a context is computed."""
        regular = (step - self.warmup - 1) % self.interval == 0
        return step < self.warmup or regular or (self.until is not None and step >= self.until)

    @property
    def settings(self) -> dict[str, Any]:
        """As the library names them."""
        return {
            "cache_interval": self.interval,
            "disable_cache_before_step": self.warmup,
            "disable_cache_after_step": self.until,
            "max_order": self.order,
            "use_lite_mode": self.lite,
        }

    def live(self, pipe: Any) -> dict[str, Any]:
        """The dtype of what is kept."""
        import torch

        return {"taylor_factors_dtype": getattr(torch, self.dtype)}

    @property
    def spelled(self) -> dict[str, str]:
        """The dtype of what is kept."""
        return {"taylor_factors_dtype": f"torch.{self.dtype}"}
