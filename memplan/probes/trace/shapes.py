"""What is kept of the tensors that cross a door: shapes, out of which zeros can be made again."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

from memplan.probes.fakes.values import exact, read
from memplan.probes.trace.moulds import untouched


@dataclass(frozen=True)
class Shape:
    """What is kept of a tensor: its view of a storage of `nbytes` bytes, and its value where that is known.

    `storage` is the same number for the views of one storage, within one result.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    storage: int
    nbytes: int
    value: torch.Tensor | None = field(default=None, compare=False)

    @classmethod
    def of(cls, tensor: torch.Tensor, numbers: dict[int, int]) -> "Shape":
        """The shape of `tensor`, of integers and booleans also the value; `numbers` are those of storages so far."""
        view = (tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()), tensor.dtype)
        storage = tensor.untyped_storage()
        number = numbers.setdefault(storage._cdata, len(numbers))
        return cls(*view, number, int(storage.nbytes()), read(tensor) if exact(tensor.dtype) else None)

    def zeros(self, storages: dict[int, torch.Tensor]) -> torch.Tensor:
        """Zeros of this shape, or the value; views share what is in `storages`. Pages of zeros are not touched."""
        with _disable_current_modes():
            if self.storage not in storages:
                storages[self.storage] = untouched(self.nbytes)
            whole = storages[self.storage][: self.nbytes // self.dtype.itemsize * self.dtype.itemsize]
            zeros = whole.view(self.dtype).as_strided(self.size, self.stride, self.offset)
            return zeros if self.value is None else zeros.copy_(self.value)


def signature(inputs: Any) -> Any:
    """What makes two calls alike: structure, tensor shapes and dtypes, and every value but floats."""
    leaves, tree = tree_flatten(inputs)
    return str(tree), tuple(_sign(v) for v in leaves)


def _sign(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype
    return value if isinstance(value, int | bool | str | None) else type(value).__name__


def shapes(result: Any) -> Any:
    """`result` with each tensor replaced by its shape, also inside objects that hold tensors as attributes."""
    return tree_map(partial(_shape_leaf, dict[int, int]()), result)


def _shape_leaf(numbers: dict[int, int], value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Shape.of(value, numbers)
    if any(isinstance(v, torch.Tensor) for v in getattr(value, "__dict__", {}).values()):
        twin = copy.copy(value)
        twin.__dict__.update({k: _shape_leaf(numbers, v) for k, v in vars(value).items()})
        return Holder(twin)
    return value


@dataclass(frozen=True)
class Holder:
    """An object whose attributes hold tensors, e.g. a latent distribution."""

    value: Any


Admit = Callable[[torch.Tensor, bool], None]
"""Is shown each tensor that is made, and whether its values are known."""


def fill(result: Any, admit: Admit) -> Any:
    """`shapes` undone with zeros; what shared a storage shares one again."""
    return tree_map(partial(_fill_leaf, dict[int, torch.Tensor](), admit), result)


def _fill_leaf(storages: dict[int, torch.Tensor], admit: Admit, value: Any) -> Any:
    if isinstance(value, Shape):
        zeros = value.zeros(storages)
        admit(zeros, value.value is not None)
        return zeros
    if isinstance(value, Holder):
        twin = copy.copy(value.value)
        twin.__dict__.update({k: _fill_leaf(storages, admit, v) for k, v in vars(twin).items()})
        return twin
    return value
