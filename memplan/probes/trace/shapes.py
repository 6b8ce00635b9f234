"""What is kept of the tensors that cross a door: shapes, out of which zeros can be made again."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from memplan.errors import BadInput
from memplan.probes.fakes.values import exact, read
from memplan.probes.trace.moulds import Mould, ZerosMaker, cast


@dataclass(frozen=True)
class Shape:
    """What is kept of a tensor: its mould, and its value where that is known."""

    mould: Mould
    value: torch.Tensor | None = field(default=None, compare=False)

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Shape":
        """The shape of `tensor`, of integers and booleans also the value."""
        return cls(Mould.of(tensor, None), read(tensor) if exact(tensor.dtype) else None)

    @property
    def size(self) -> tuple[int, ...]:
        """Elements in each dimension."""
        return self.mould.size

    def zeros(self, storages: dict[int, torch.Tensor]) -> torch.Tensor:
        """Zeros of this shape, or the value; views share what is in `storages`. Pages of zeros are not touched."""
        zeros = cast(self.mould, ZerosMaker(), storages, ())
        with _disable_current_modes():
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
    return tree_map(_shape_leaf, result)


def check_sizes(result: Any, expected: Any) -> None:
    """Raises BadInput where the tensors of `result` are not as large as those of `expected`, both being `shapes`."""
    made, wanted = ([shape.size for shape in _shapes_in(value)] for value in (result, expected))
    if made != wanted:
        words = (" and ".join("x".join(map(str, size)) for size in sizes) for sizes in (made, wanted))
        raise BadInput("what comes out would be {}, and should be {}".format(*words))


def _shapes_in(value: Any) -> list["Shape"]:
    leaves = (list(vars(leaf.value).values()) if isinstance(leaf, Holder) else leaf for leaf in tree_leaves(value))
    return [shape for shape in tree_leaves(list(leaves)) if isinstance(shape, Shape)]


def _shape_leaf(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Shape.of(value)
    if any(isinstance(v, torch.Tensor) for v in getattr(value, "__dict__", {}).values()):
        twin = copy.copy(value)
        twin.__dict__.update({k: _shape_leaf(v) for k, v in vars(value).items()})
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
