"""Formats in which weights are stored: their bytes, what a layer holds to compute with them, and their error."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from memplan.facts import Weight


@dataclass(frozen=True)
class Leaf:
    """One call of a linear layer: so many `rows` go in; the weight has `columns` and `features` rows of its own.

    `item` is the bytes of one element of its input, output and original weight.
    """

    rows: int
    columns: int
    features: int
    item: int
    bias: bool

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
    """One way to store the weights of linear layers.

    `tensors` gives the bytes of each tensor that holds a weight: the packed values first, then their scales. `held` is
    the most that a layer holds while it runs beside its input and its stored weight, in bytes, its output included.
    Where it `dequantizes`, that is mostly the weight in the input's dtype, which it writes and reads each time.
    `making` is the most beside the original while a weight is converted, the result included, on a device or, where its
    second argument is true, on the CPU, for which bitsandbytes has no kernels that do it.
    `error` is the relative root-mean-square error of the output of a linear layer of 3072 columns whose weights and
    inputs are normally distributed.
    """

    tensors: Callable[[Weight], tuple[int, ...]]
    held: Callable[[Leaf], int]
    making: Callable[[Weight, bool], int]
    error: float
    dequantizes: bool = True


def _blocks(elements: int, size: int) -> int:
    return -(-elements // size)


# ---- bitsandbytes ---------------------------------------------------------------------------------------------------
_BLOCK, _NESTED_BLOCK = 64, 256
_CODE, _NESTED_CODE, _OFFSET = 16 * 4, 256 * 4, 4
_FEW_ROWS = 4


def _four_bit(weight: Weight) -> tuple[int, ...]:
    """Half a byte each, and for each block of 64 a scale in float32 (`quantize_4bit` in bitsandbytes/functional.py)."""
    return _blocks(weight.numel, 2), 4 * _blocks(weight.numel, _BLOCK), _CODE


def _four_bit_nested(weight: Weight) -> tuple[int, ...]:
    """The scales in 8 bits, with one in float32 for each 256 of them, and their mean."""
    scales = _blocks(weight.numel, _BLOCK)
    nested = 4 * _blocks(scales, _NESTED_BLOCK)
    return _blocks(weight.numel, 2), scales, _CODE, _OFFSET, nested, _NESTED_CODE


def _four_bit_making(weight: Weight, on_cpu: bool) -> int:
    """A kernel writes the result; on the CPU ops do, with the weight in float32 (bitsandbytes/backends/default)."""
    scales = 4 * _blocks(weight.numel, _BLOCK)
    if not on_cpu:
        return sum(_four_bit(weight))
    return (10 + _widened(weight)) * weight.numel + scales


def _four_bit_nested_making(weight: Weight, on_cpu: bool) -> int:
    """The scales less their mean are in float32 beside the result for a moment."""
    scales = 4 * _blocks(weight.numel, _BLOCK)
    return max(_four_bit_making(weight, on_cpu), sum(_four_bit_nested(weight)) + 2 * scales)


def _fp4_making(weight: Weight, on_cpu: bool) -> int:
    """On the CPU fp4 is looked up with indices of 64 bits besides."""
    return _four_bit_making(weight, on_cpu) + 14 * weight.numel * on_cpu


def _fp4_nested_making(weight: Weight, on_cpu: bool) -> int:
    return max(_fp4_making(weight, on_cpu), _four_bit_nested_making(weight, on_cpu))


def _widened(weight: Weight) -> int:
    """Bytes of an element in float32, where that is a copy."""
    return 0 if weight.dtype == "float32" else 4


def _four_bit_held(leaf: Leaf) -> int:
    """The weight in full; for up to 4 rows a kernel does without (`_GEMM_4BIT_CUSTOM_FLOOR_M`)."""
    return leaf.item * (leaf.output + (leaf.weight if leaf.rows > _FEW_ROWS else 0))


def _four_bit_nested_held(leaf: Leaf) -> int:
    """The scales in float32 too, twice: with and without their mean (`_dequant_linear_fallback`)."""
    scales = 2 * 4 * _blocks(leaf.weight, _BLOCK) if leaf.rows > _FEW_ROWS else 0
    return _four_bit_held(leaf) + scales


def _eight_bit(weight: Weight) -> tuple[int, ...]:
    """A byte each, and for each row a scale in float32 (`int8_vectorwise_quant`)."""
    return weight.numel, 4 * (weight.numel // weight.columns)


def _eight_bit_making(weight: Weight, on_cpu: bool) -> int:
    """The weight in float16 first; on the CPU its products and their rounded values in float32 then."""
    half = 0 if weight.dtype == "float16" else 2 * weight.numel
    return half + (8 * weight.numel + 8 * (weight.numel // weight.columns) if on_cpu else sum(_eight_bit(weight)))


def _eight_bit_held(leaf: Leaf) -> int:
    """The input in 8 bits and a scale for each row of it, the product in 32 bits, and the result."""
    return leaf.input + 4 * leaf.rows + 4 * leaf.output + leaf.item * leaf.output


# ---- torchao --------------------------------------------------------------------------------------------------------
def _int8(weight: Weight) -> tuple[int, ...]:
    """A byte each, and for each row a scale in float32 and a zero point in int8 (`Int8Tensor.from_hp`)."""
    features = weight.numel // weight.columns
    return weight.numel, 4 * features, features


def _int8_making(weight: Weight, on_cpu: bool) -> int:
    """The quotients and their rounded values in float32 (`_quantize_affine_no_dtype_cast`)."""
    return 8 * weight.numel + 9 * (weight.numel // weight.columns)


def _int8_held(leaf: Leaf) -> int:
    """The weight in full until the product is there, then the product and the scaled one (`Int8Tensor`, linear)."""
    return leaf.item * max(leaf.weight + leaf.output, 2 * leaf.output + leaf.features)


def _int8_dynamic_held(leaf: Leaf) -> int:
    """The input in float32 twice while it is rounded; the product in 32 bits, and in float32 twice, beside it."""
    return max(8 * leaf.input, leaf.input + 12 * leaf.output) + 5 * leaf.rows


def _float8(weight: Weight) -> tuple[int, ...]:
    """A byte each, and for each row a scale in float32 (`Float8Tensor.from_hp`)."""
    return weight.numel, 4 * (weight.numel // weight.columns)


def _float8_making(weight: Weight, on_cpu: bool) -> int:
    """In float32 three times over, beside the result (`Float8Tensor.from_hp`)."""
    copied = 13 if weight.dtype == "float32" else 15
    return copied * weight.numel + 8 * (weight.numel // weight.columns)


def _float8_held(leaf: Leaf) -> int:
    """The weight is made in float32, twice, then in full; a bias is added to a copy (`_float8_addmm_impl`)."""
    results = [10 * leaf.weight, leaf.item * (leaf.weight + leaf.output)]
    return max(*results, 2 * leaf.item * leaf.output if leaf.bias else 0)


_FLOAT8_MULTIPLE = 16


def _float8_dynamic(weight: Weight) -> tuple[int, ...]:
    """A byte each and one scale; a matrix is left where a side is no multiple of 16 (`_fp8_mm_compat`)."""
    fits = weight.columns % _FLOAT8_MULTIPLE == weight.numel // weight.columns % _FLOAT8_MULTIPLE == 0
    return (weight.numel, 4) if fits else (weight.nbytes,)


def _float8_dynamic_making(weight: Weight, on_cpu: bool) -> int:
    """In float32 twice, or three times where it was not, beside the result; nothing where it stays as it is."""
    fits = len(_float8_dynamic(weight)) > 1
    return (9 + _widened(weight)) * weight.numel + 4 if fits else 0


def _float8_dynamic_held(leaf: Leaf) -> int:
    """The input in float32 three times while it is rounded, and in float8; then that and the product."""
    if leaf.columns % _FLOAT8_MULTIPLE or leaf.features % _FLOAT8_MULTIPLE:
        return leaf.item * leaf.output
    return max(13 * leaf.input, leaf.input + leaf.item * leaf.output)


_INT4_GROUP, _INT4_COLUMNS, _INT4_FEATURES = 128, 1024, 8


def _up(number: int, multiple: int) -> int:
    return _blocks(number, multiple) * multiple


def _int4(weight: Weight) -> tuple[int, ...]:
    """Half a byte each, and for each 128 a scale and a zero point in bfloat16; padded (`Int4TilePackedTo4dTensor`)."""
    if weight.columns % _INT4_GROUP:
        return (weight.nbytes,)
    columns, features = _up(weight.columns, _INT4_COLUMNS), _up(weight.numel // weight.columns, _INT4_FEATURES)
    return columns * features // 2, columns // _INT4_GROUP * features * 2 * 2


def _int4_making(weight: Weight, on_cpu: bool) -> int:
    """Padded, its values in int32, and pairs of those on the way to bytes: read from the source, not measured."""
    columns, features = _up(weight.columns, _INT4_COLUMNS), _up(weight.numel // weight.columns, _INT4_FEATURES)
    return 0 if weight.columns % _INT4_GROUP else 10 * columns * features


def _int4_held(leaf: Leaf) -> int:
    """A padded copy of the input, and the product, once more without its padding where it has one."""
    if leaf.columns % _INT4_GROUP:
        return leaf.item * leaf.output
    features = _up(leaf.features, _INT4_FEATURES)
    cut = leaf.output if features != leaf.features else 0
    return leaf.item * (leaf.rows * (_up(leaf.columns, _INT4_COLUMNS) + features) + cut)


# ---- optimum-quanto -------------------------------------------------------------------------------------------------
def _quanto(weight: Weight) -> tuple[int, ...]:
    """A byte each, for each row a scale in the weight's dtype, and two scales of activations (`QModuleMixin`)."""
    item = weight.nbytes // weight.numel
    return weight.numel, item * (weight.numel // weight.columns), item, item


def _quanto_making(weight: Weight, on_cpu: bool) -> int:
    """The new layer's own weight, as large as the old, its quotients and what they are rounded to, and the result."""
    item = weight.nbytes // weight.numel
    return (4 * item + 1) * weight.numel + 2 * item * (weight.numel // weight.columns) + 4 * item


def _quanto_int8_held(leaf: Leaf) -> int:
    """The scaled weight in full (`qbytes_mm` in quanto's library); a bias is added to a copy."""
    return leaf.item * max(leaf.weight + leaf.output, 2 * leaf.output if leaf.bias else 0)


def _quanto_float8_held(leaf: Leaf) -> int:
    """The weight in full twice, before and after it is scaled."""
    return max(2 * leaf.item * leaf.weight, _quanto_int8_held(leaf))


FORMATS: Mapping[str, Format] = MappingProxyType({
    "nf4": Format(_four_bit, _four_bit_held, _four_bit_making, 0.0920),
    "nf4 nested": Format(_four_bit_nested, _four_bit_nested_held, _four_bit_nested_making, 0.0920),
    "fp4": Format(_four_bit, _four_bit_held, _fp4_making, 0.1218),
    "fp4 nested": Format(_four_bit_nested, _four_bit_nested_held, _fp4_nested_making, 0.1218),
    "bnb int8": Format(_eight_bit, _eight_bit_held, _eight_bit_making, 0.0120, dequantizes=False),
    "int8": Format(_int8, _int8_held, _int8_making, 0.0088),
    "int8 dynamic": Format(_int8, _int8_dynamic_held, _int8_making, 0.0122, dequantizes=False),
    "float8": Format(_float8, _float8_held, _float8_making, 0.0265),
    "float8 dynamic": Format(
        _float8_dynamic, _float8_dynamic_held, _float8_dynamic_making, 0.0373, dequantizes=False
    ),
    "int4": Format(_int4, _int4_held, _int4_making, 0.0998, dequantizes=False),
    "quanto int8": Format(_quanto, _quanto_int8_held, _quanto_making, 0.0088),
    "quanto float8": Format(_quanto, _quanto_float8_held, _quanto_making, 0.0265),
})  # fmt: skip
"""The formats of quantizers, by the name that a picture gives them."""
