"""What step caches share that ask the pipeline at which timestep it is, and work within windows of timesteps."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from memplan.facts import Turn
from memplan.strategy import written

from .step_cache import StepCache, Stepping

CURRENT = "current_timestep_callback"
"""How the library's configs name what tells the timestep."""
ENDS = 2
"""Timesteps by which a window is told."""


def window(turn: Turn, pair: tuple[int, ...]) -> bool:
    """Whether the timestep of `turn` is within a window, its ends left out."""
    return turn.timestep is not None and pair[0] < turn.timestep < pair[1]


@dataclass(frozen=True)
class TimedCache(StepCache):
    """A cache that works within windows of timesteps: its settings whose names end with `_window`."""

    apart: ClassVar[bool] = False

    @property
    def invalid(self) -> str | None:
        """The sentence about a window that is none."""
        for setting in fields(self):
            if setting.name.endswith("_window") and len(getattr(self, setting.name)) != ENDS:
                return f"a window is two timesteps, as in {setting.name}={written(setting.default)}"
        return None

    def unfit(self, stepping: Stepping) -> str | None:
        """Refuses calls whose timestep is not known."""
        if stepping.untimed:
            return "this pipeline does not say at which timestep it is"
        return super().unfit(stepping)

    def live(self, pipe: Any) -> dict[str, Any]:
        """What tells the timestep."""
        return {CURRENT: lambda: pipe.current_timestep}

    @property
    def spelled(self) -> dict[str, str]:
        """What tells the timestep."""
        return {CURRENT: "lambda: pipe.current_timestep"}
