"""Pyramid Attention Broadcast: attention gives what it gave some steps ago."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from memplan.run import Kept, Shortened

from .live.step_cache import Enabled
from .rules.step_cache import Stepping
from .rules.timed_cache import TimedCache, window


@dataclass(frozen=True)
class PyramidAttentionBroadcast(Enabled, TimedCache):
    """Pyramid Attention Broadcast: attention is computed at some steps, and gives at others what it gave last.

    It is computed once in `spatial`, `temporal` or `cross` steps, each for attention of that kind, while the timestep
    is within its window; "none" leaves the kind alone. It saves the attention modules' time, and the rest of the model
    runs as before. Windows are timesteps, of which most schedulers have 1000.

    It keeps what each of these modules gives: for large pictures and videos that is gigabytes.

    Traps: it changes the picture; where the guided prompt and the other are two forwards, one would be given what the
    other computed, so that such calls are refused.
    """

    spatial: int | None = 2
    temporal: int | None = None
    cross: int | None = None
    spatial_window: tuple[int, ...] = (100, 800)
    temporal_window: tuple[int, ...] = (100, 800)
    cross_window: tuple[int, ...] = (100, 800)

    name: ClassVar[str] = "pyramid_attention_broadcast"
    known_as: ClassVar[tuple[str, ...]] = ("pab",)
    config_class: ClassVar[str] = "PyramidAttentionBroadcastConfig"

    @property
    def invalid(self) -> str | None:
        """The sentence about settings out of range."""
        ranges = [steps for steps, _ in self._kinds.values() if steps is not None]
        if not ranges or min(ranges) < 1:
            return "one of spatial, temporal and cross is given, and those that are given are 1 or more"
        return super().invalid

    def unfit(self, stepping: Stepping) -> str | None:
        """Refuses calls whose timestep is not known, and guidance in two forwards, for which it has one state."""
        untimed = super().unfit(stepping)
        if untimed:
            return untimed
        if stepping.in_turn:
            return "the call makes several forwards a step, and each would be given the attention of another"
        if not any(self._kinds[kind][0] for kind in stepping.hooks.kinds):
            return f"the model has no such attention; it has {' and '.join(sorted(set(stepping.hooks.kinds)))}"
        return None

    def forwards(self, stepping: Stepping) -> Iterator[Shortened]:
        """The rule of `PyramidAttentionBroadcastHook`."""
        hooks = stepping.hooks
        chosen = [(path, *self._kinds[kind]) for path, kind in zip(hooks.modules, hooks.kinds, strict=True)]
        kept = tuple(Kept(path) for path, steps, _ in chosen if steps is not None)
        for number, turn in enumerate(stepping.turns):
            again = (path for path, steps, pair in chosen if steps and number % steps and window(turn, pair))
            yield Shortened(tuple(again), kept)

    @property
    def _kinds(self) -> dict[str, tuple[int | None, tuple[int, ...]]]:
        return {
            "spatial": (self.spatial, self.spatial_window),
            "temporal": (self.temporal, self.temporal_window),
            "cross": (self.cross, self.cross_window),
        }

    @property
    def settings(self) -> dict[str, Any]:
        """As the library names them."""
        ranges = {f"{kind}_attention_block_skip_range": steps for kind, (steps, _) in self._kinds.items()}
        return ranges | {f"{kind}_attention_timestep_skip_range": pair for kind, (_, pair) in self._kinds.items()}
