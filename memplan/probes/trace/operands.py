"""The tensors among what an op is given and gives, and the bytes that reading one moves."""

from collections.abc import Iterable
from typing import Any

import torch


def tensors_in(values: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors among `values`, also those in lists and tuples."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(value)
    return found


def extent(tensor: torch.Tensor) -> int:
    """Bytes that reading or writing `tensor` once moves: expanded dimensions are one element in memory."""
    size = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        size *= length if stride or not length else 1
    return size
