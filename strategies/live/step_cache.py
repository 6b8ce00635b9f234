"""A step cache of diffusers on a live denoiser, and the way back."""

from typing import Any

from memplan.errors import BadInput
from memplan.strategy import Undo

from .way_back import switched


def enabled(name: str, part: Any, config: Any) -> Undo:
    """Enables the cache that `config` describes; the value takes it off, and all that it leaves on the modules.

    Raises BadInput for a component that has one already.
    """
    if part.is_cache_enabled:
        raise BadInput(f"{name} has a step cache already: call disable_cache() first")
    restore = switched(part.modules(), lambda: part.enable_cache(config))

    def undo() -> None:
        part.disable_cache()
        restore()

    return undo
