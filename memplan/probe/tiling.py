"""Switches a component's tiling on for the length of a trace, where it has one that is off."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

VARIANT = "tiled"
METHODS = ("decode", "encode")
"""The methods of a component that tiling changes."""


@contextmanager
def tiling(module: Any) -> Generator[bool]:
    """Tiles of the library's default size; False where the component has none, or tiles already."""
    if getattr(module, "use_tiling", True):
        yield False
        return
    before = _settings(module)
    try:
        module.enable_tiling()
        on = True
    except (AttributeError, NotImplementedError):
        on = False
    try:
        yield on
    finally:
        for name in _settings(module).keys() - before.keys():
            del vars(module)[name]
        vars(module).update(before)


def _settings(module: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if "tile" in name or "tiling" in name}
