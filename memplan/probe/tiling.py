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
    before = {name: value for name, value in vars(module).items() if "tile" in name or "tiling" in name}
    try:
        module.enable_tiling()
    except (AttributeError, NotImplementedError):
        yield False
        return
    try:
        yield True
    finally:
        vars(module).update(before)
