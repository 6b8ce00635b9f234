"""What a format of weights is to the simulator: its bytes, what a layer holds to compute with them, and its error."""

from collections.abc import Callable
from dataclasses import dataclass

from memplan.facts import ITEM_SIZE, Weight

E4M3_ERROR, E5M2_ERROR = 0.0265, 0.0530
"""Relative root-mean-square error of normally distributed numbers rounded to float8_e4m3fn and to float8_e5m2."""


@dataclass(frozen=True)
class Leaf:
    """One call of a linear layer: so many `rows` go in; the weight has `columns` and `features` rows of its own.

    `dtype` is that of its input, output and original weight.
    """

    rows: int
    columns: int
    features: int
    dtype: str
    bias: bool

    @property
    def item(self) -> int:
        """Bytes of one element of the input, output and original weight."""
        return ITEM_SIZE[self.dtype]

    @property
    def input(self) -> int:
        """Elements of the input."""
        return self.rows * self.columns

    @property
    def output(self) -> int:
        """Elements of the output."""
        return self.rows * self.features

    @property
    def weight(self) -> int:
        """Elements of the weight."""
        return self.columns * self.features


@dataclass(frozen=True)
class Format:
    """One way to store the weights of linear layers that it converts.

    `tensors` gives the bytes of each tensor that holds a weight: the packed values first, then their scales. `held` is
    the most that a layer holds while it runs beside its input and its stored weight, in bytes, its output included.
    `moved` are the bytes that it reads and writes to that end, but for the operands and the result of the product, and
    `fused` those of compiled code, None where they are the same. The product is computed in the dtype `product`, or in
    the input's where it is "".
    `making` is the most beside the original while a weight is converted, the result included, on a device or, where its
    second argument is true, on the CPU, for which bitsandbytes has no kernels that do it.
    `error` is the relative root-mean-square error of the output of a linear layer of 3072 columns whose weights and
    inputs are normally distributed.
    """

    tensors: Callable[[Weight], tuple[int, ...]]
    held: Callable[[Leaf], int]
    making: Callable[[Weight, bool], int]
    error: float
    moved: Callable[[Leaf], int]
    product: str = ""
    fused: Callable[[Leaf], int] | None = None


def blocks(elements: int, size: int) -> int:
    """How many blocks of `size` elements it takes, the last of which may not be full."""
    return -(-elements // size)


def features_of(weight: Weight) -> int:
    """Rows of a linear layer's matrix."""
    return weight.numel // weight.columns


def with_scales(weight: Weight) -> tuple[int, ...]:
    """A byte for each element, and for each row a scale in float32."""
    return weight.numel, 4 * features_of(weight)


def widened(weight: Weight) -> int:
    """Bytes of an element in float32, where that is a copy."""
    return 0 if weight.dtype == "float32" else 4
