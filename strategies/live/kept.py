"""Arguments of calls that are kept until the next one: whether they are the same, and what is left of them."""

import weakref
from collections.abc import Mapping
from typing import Any

from .batches import changed, is_tensor, leaves

GONE = object()
"""Stands for a tensor that is no more, or was written to."""


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same: one tensor, or two that are equal."""
    if is_tensor(one) or is_tensor(other):
        return one is other or (is_tensor(one) and is_tensor(other) and _equal(one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one is other or one == other)


def _equal(one: Any, other: Any) -> bool:
    import torch

    same_kind = (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
    return same_kind and torch.equal(one, other)


def weak(value: Any) -> Any:
    """`value`, whose tensors it does not keep alive: the pipeline does, for as long as it needs them."""
    return changed(value, lambda leaf: _Weak(leaf) if is_tensor(leaf) else leaf)


def alive(value: Any) -> Any:
    """`weak` undone, with GONE for each tensor that is."""
    return changed(value, lambda leaf: leaf.now() if isinstance(leaf, _Weak) else leaf)


def gone(value: Any) -> bool:
    """Whether anything in it is."""
    return any(leaf is GONE for leaf in leaves(value))


def versions(value: Any) -> tuple[int, ...]:
    """How often each tensor in `value` was written to, where PyTorch counts."""
    return tuple(_version(leaf) for leaf in leaves(value) if is_tensor(leaf))


class _Weak:
    def __init__(self, tensor: Any) -> None:
        self.reference, self.version = weakref.ref(tensor), _version(tensor)

    def now(self) -> Any:
        tensor = self.reference()
        return GONE if tensor is None or _version(tensor) != self.version else tensor


def _version(tensor: Any) -> int:
    return 0 if tensor.is_inference() else tensor._version
