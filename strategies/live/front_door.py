"""Stands before the forward of a live denoiser, inside of every hook that is hung on it later."""

from collections.abc import Callable
from functools import wraps
from logging import getLogger
from typing import Any

from memplan.errors import BadInput
from memplan.strategy import AT_THE_DOOR, Undo

from .way_back import attributes

Forward = Callable[..., Any]


def hung(part: Any, name: str, wrapped: Callable[[Forward], Forward]) -> Undo:
    """Has `part` called through `wrapped(its forward)`; the value undoes it.

    Raises BadInput where something stands there already, or where a step cache tells the passes apart.
    """
    if AT_THE_DOOR in vars(part):
        raise BadInput(f"{type(part).__name__} has {vars(part)[AT_THE_DOOR]} already: undo that first")
    if getattr(part, "is_cache_enabled", False):
        raise BadInput(f"{type(part).__name__} has a step cache, which tells the passes apart: call disable_cache()")
    undo, forward = attributes(part, "forward", AT_THE_DOOR), part.forward
    calls = wrapped(forward)

    @wraps(forward)  # pipelines look at what a component's forward takes
    def before(*args: Any, **kwargs: Any) -> Any:
        return calls(*args, **kwargs)

    setattr(part, AT_THE_DOOR, name)
    part.forward = before
    return undo


class Once:
    """Says each sentence once, in the log of memplan."""

    def __init__(self) -> None:
        """Nothing was said."""
        self.said: set[str] = set()

    def __call__(self, sentence: str) -> None:
        """As a warning."""
        if sentence not in self.said:
            self.said.add(sentence)
            getLogger("memplan").warning(sentence)
