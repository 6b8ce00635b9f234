"""A step cache of diffusers on a live denoiser, and the way back."""

from typing import Any, Protocol

from memplan.errors import BadInput
from memplan.strategy import Undo

from .way_back import switched


class Configured(Protocol):
    """A step cache of one component, which makes the library's config."""

    @property
    def component(self) -> str:
        """Where it is."""
        ...

    def made(self, pipe: Any) -> Any:
        """The config for a live pipeline."""
        ...


class Enabled:
    """How every step cache of the library is applied."""

    def apply(self: Configured, pipe: Any, device: str) -> Undo:
        """Enables it. Raises BadInput for a component that has a cache already."""
        return enabled(self.component, getattr(pipe, self.component), self.made(pipe))


def enabled(name: str, part: Any, config: Any) -> Undo:
    """Enables the cache that `config` describes; the value takes it off, and all that it leaves on the modules.

    One that somebody has enabled in its place since stays. Raises BadInput for a component that has one already.
    """
    if part.is_cache_enabled:
        raise BadInput(f"{name} has a step cache already: call disable_cache() first")
    restore = switched(part.modules(), lambda: part.enable_cache(config))

    def undo() -> None:
        if part.is_cache_enabled and part._cache_config is not config:
            return
        if part.is_cache_enabled:
            part.disable_cache()
        restore()

    return undo
