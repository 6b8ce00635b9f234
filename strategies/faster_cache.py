"""FasterCache: attention is extrapolated from two earlier steps, and the unguided half of a batch from the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.facts import Facts
from memplan.run import Kept, OnCall, Run, Shortened

from .live.step_cache import Enabled
from .rules.step_cache import Stepping
from .rules.timed_cache import TimedCache, window

FORMATS = {"BCHW": 4, "BCFHW": 5, "BFCHW": 5}
"""Orders of a picture's or a video's dimensions that the library knows, and how many those are."""
FRAMES_FIRST = ("CogVideoXTransformer3DModel",)
"""Classes that return the frames before the channels."""


@dataclass(frozen=True)
class FasterCache(Enabled, TimedCache):
    """FasterCache: attention at some steps is extrapolated from two earlier ones, and guidance from one forward.

    The half of a batch without the prompt is computed once in `unguided` steps while the timestep is within
    `unguided_window`; in between it is made of the other half and of how the frequencies of both differed. At those
    steps attention is computed once in `spatial` or `temporal` steps within their windows. For a model that is
    `distilled` there is no such half, and only attention is extrapolated. Windows are timesteps.

    It keeps what each attention module gave twice, and two spectra of the picture.

    Traps: it changes the picture; the library calls it experimental, and its attention finds fault with many models;
    guidance in two forwards has no halves.
    """

    spatial: int = 2
    temporal: int | None = None
    spatial_window: tuple[int, ...] = (-1, 681)
    temporal_window: tuple[int, ...] = (-1, 681)
    unguided: int = 5
    unguided_window: tuple[int, ...] = (-1, 641)
    format: str = "BCFHW"
    distilled: bool = False

    name: ClassVar[str] = "faster_cache"
    known_as: ClassVar[tuple[str, ...]] = ("fastercache",)
    config_class: ClassVar[str] = "FasterCacheConfig"

    @classmethod
    def suited(cls, component: str, facts: Facts) -> Self:
        """The order of dimensions by class, and whether one forward makes the whole step."""
        guided = any(turn.guided for turn in facts.trace.turns if turn.component == component)
        kind = facts.model.component(component).class_name
        return cls(component, format="BFCHW" if kind in FRAMES_FIRST else cls.format, distilled=not guided)

    @property
    def invalid(self) -> str | None:
        """The sentence about settings out of range."""
        if min(self.spatial, self.temporal or 1, self.unguided) < 1:
            return "spatial, temporal and unguided are 1 or more"
        if self.format not in FORMATS:
            return f"format is one of {', '.join(FORMATS)}, not {self.format}"
        return super().invalid

    def refuses(self, run: Run) -> str | None:
        """Refuses what moves the whole component by a hook of its own, beside what every cache does."""
        placement = run.placement(self.component)
        if isinstance(placement, OnCall):
            return (
                "the pipeline puts its offload hooks on anew after each call, and this cache's own hook would be lost"
            )
        return super().refuses(run)

    def unfit(self, stepping: Stepping) -> str | None:
        """Refuses calls without two halves of a batch, and windows in which nothing was computed before."""
        untimed = super().unfit(stepping)
        if untimed:
            return untimed
        if stepping.in_turn:
            return "the call makes several forwards a step, and a batch without its two halves cannot be extrapolated"
        if self.distilled:
            early = window(stepping.turns[0], self.spatial_window) or window(stepping.turns[0], self.temporal_window)
            return "the first step is within a window, and has nothing to be extrapolated from" if early else None
        result = next(iter(stepping.call.returned("")), None)
        if not all(turn.guided for turn in stepping.turns) or (result is not None and result.shape[0] % 2):
            return "the call is not guided by two halves of a batch: set distilled=true"
        if result is not None and len(result.shape) != FORMATS[self.format]:
            return f"the model returns {len(result.shape)} dimensions, and {self.format} has {FORMATS[self.format]}"
        return None

    def forwards(self, stepping: Stepping) -> Iterator[Shortened]:
        """The rule of `FasterCacheDenoiserHook` and `FasterCacheBlockHook`."""
        hooks = stepping.hooks
        temporal = (self.temporal, self.temporal_window)
        kinds: dict[str, tuple[int | None, tuple[int, ...]]]
        kinds = {"spatial": (self.spatial, self.spatial_window), "temporal": temporal}
        chosen = [(path, *kinds[kind]) for path, kind in zip(hooks.modules, hooks.kinds, strict=True)]
        past: dict[str, tuple[Kept, ...]] = {path: (Kept(path),) for path, steps, _ in chosen if steps}
        spectra = () if self.distilled else (Kept("", (0,), anew=True, dtype="complex64", parts=2),) * 2
        for number, turn in enumerate(stepping.turns):
            halved = bool(number % self.unguided) and window(turn, self.unguided_window) and not self.distilled
            resting = {path for path, steps, pair in chosen if steps and (number % steps or not number)
                       and window(turn, pair) and (self.distilled or halved)}  # fmt: skip
            for path, earlier in past.items() if number else ():
                gave = Kept(path, anew=path in resting, parts=2 if halved else 1)
                past[path] = (earlier[-1], gave)
            kept = (*spectra, *(one for both in past.values() for one in both))
            yield Shortened(tuple(path for path in hooks.modules if path in resting), kept, halved=halved)

    @property
    def settings(self) -> dict[str, Any]:
        """As the library names them."""
        return {
            "spatial_attention_block_skip_range": self.spatial,
            "temporal_attention_block_skip_range": self.temporal,
            "spatial_attention_timestep_skip_range": self.spatial_window,
            "temporal_attention_timestep_skip_range": self.temporal_window,
            "unconditional_batch_skip_range": self.unguided,
            "unconditional_batch_timestep_skip_range": self.unguided_window,
            "tensor_format": self.format,
            "is_guidance_distilled": self.distilled,
        }
