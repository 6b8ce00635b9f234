"""How weights lie in memory."""

from typing import Any

from memplan.strategy import Undo

IMAGES = 4
"""Dimensions of the filters of 2D convolutions."""


def channels_last(part: Any, keep: bool = False) -> Undo:
    """Lays out the filters of 2D convolutions of `part` channels-last; the value gives each the strides that it had.

    What this makes is copied back unless it is to `keep` what was there before. Where it fails, what was done so far is
    undone at once.
    """
    import torch

    done: list[tuple[Any, Any]] = []

    def restore() -> None:
        for weight, before in done:
            weight.data = before if keep else _strided(weight.data, before)

    try:
        for weight in part.parameters():
            if weight.dim() == IMAGES:
                other = weight.data.to(memory_format=torch.channels_last)  # also of one pixel
                done.append((weight, weight.data if keep else weight.stride()))
                weight.data = other
    except BaseException:
        restore()
        raise
    return restore


def _strided(data: Any, stride: tuple[int, ...]) -> Any:
    """`data` in memory of its own with these strides, or itself where it has them."""
    if data.stride() == stride:
        return data
    return data.new_empty_strided(data.shape, stride).copy_(data)
