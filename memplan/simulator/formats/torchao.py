"""The formats of torchao, as version 0.18 stores them and computes with them on CUDA.

What a layer holds is that of uncompiled code; compiled code may hold less.
"""

from collections.abc import Mapping
from types import MappingProxyType

from memplan.facts import Weight
from memplan.simulator.formats.contract import E4M3_ERROR, Format, Leaf, blocks, features_of, widened, with_scales


# ---- int8 -----------------------------------------------------------------------------------------------------------
def _int8(weight: Weight) -> tuple[int, ...]:
    """A byte each, and for each row a scale in float32 and a zero point in int8 (`Int8Tensor.from_hp`)."""
    return *with_scales(weight), features_of(weight)


def _int8_making(weight: Weight, on_cpu: bool) -> int:
    """The quotients and their rounded values in float32 (`_quantize_affine_no_dtype_cast`)."""
    return 8 * weight.numel + 9 * features_of(weight)


def _int8_held(leaf: Leaf) -> int:
    """The weight in full until the product is there, then the product and the scaled one (`Int8Tensor`, linear)."""
    return leaf.item * max(leaf.weight + leaf.output, 2 * leaf.output + leaf.features)


def _int8_moved(leaf: Leaf) -> int:
    """The weight is read and written in full, and the product scaled."""
    return (1 + leaf.item) * leaf.weight + 2 * leaf.item * leaf.output


_INT_MULTIPLE, _FEW_ROWS = 8, 16


def _int8_dynamic_held(leaf: Leaf) -> int:
    """The most of what rounding the input, multiplying and scaling hold: read from the source, not measured.

    The input is in float32 twice while it is rounded; its bytes, scales and zero points stay. `safe_int_mm` in
    torchao/kernel/intmm.py then copies the bytes of the weight, because they are transposed, and hands cuBLAS more than
    16 rows: `_int_mm` of ATen refuses fewer, and both factors and the product are made in float32. Where a side is no
    multiple of 8 it multiplies in host memory. Last the product is in int32 and scaled in float32, which is as much as
    the result and its scaled copies take (`Int8Tensor`, linear).
    """
    kept = leaf.input + 5 * leaf.rows
    return max(8 * leaf.input + 5 * leaf.rows, kept + _integer_product(leaf), kept + 8 * leaf.output)


def _integer_product(leaf: Leaf) -> int:
    """What `safe_int_mm` holds on CUDA beside its factors, its result included."""
    if leaf.columns % _INT_MULTIPLE or leaf.features % _INT_MULTIPLE:
        return 4 * leaf.output
    if leaf.rows > _FEW_ROWS:
        return leaf.weight + 4 * leaf.output
    return leaf.weight + max(4 * (leaf.input + leaf.weight + leaf.output), 8 * leaf.output)


def _int8_dynamic_moved(leaf: Leaf) -> int:
    """The input becomes float32, is searched for its extremes, divided, rounded, cut off and made int8.

    The bytes of the weight are copied; the product is scaled by columns and by rows in float32.
    """
    rounding = (leaf.item + 4) + 2 * 4 + 3 * 8 + 5
    return rounding * leaf.input + 2 * leaf.weight + (8 + 8 + 4 + leaf.item) * leaf.output


def _int8_dynamic_fused(leaf: Leaf) -> int:
    """A kernel reads the input and writes its bytes, another scales the product, which comes in int32."""
    return (leaf.item + 1) * leaf.input + 2 * 4 * leaf.output


# ---- float8 ---------------------------------------------------------------------------------------------------------
def _float8_making(weight: Weight, on_cpu: bool) -> int:
    """In float32 three times over, beside the result (`Float8Tensor.from_hp`)."""
    copied = 13 if weight.dtype == "float32" else 15
    return copied * weight.numel + 8 * features_of(weight)


def _float8_held(leaf: Leaf) -> int:
    """The weight is made in float32, twice, then in full; a bias is added to a copy (`_float8_addmm_impl`)."""
    results = [10 * leaf.weight, leaf.item * (leaf.weight + leaf.output)]
    return max(*results, 2 * leaf.item * leaf.output if leaf.bias else 0)


def _float8_moved(leaf: Leaf) -> int:
    """The weight becomes float32, is scaled, and becomes the input's dtype."""
    return (5 + 8 + 4 + leaf.item) * leaf.weight + (2 * leaf.item * leaf.output if leaf.bias else 0)


def _float8_fused(leaf: Leaf) -> int:
    """The weight is read in float8 and written in the input's dtype."""
    return (1 + leaf.item) * leaf.weight


def _float8_dynamic(weight: Weight) -> tuple[int, ...]:
    """A byte each and one scale."""
    return weight.numel, 4


def _float8_dynamic_making(weight: Weight, on_cpu: bool) -> int:
    """In float32 twice, or three times where it was not, beside the result."""
    return (9 + widened(weight)) * weight.numel + 4


def _float8_dynamic_held(leaf: Leaf) -> int:
    """The input in float32 three times while it is rounded, and in float8; then that and the product."""
    return max(13 * leaf.input, leaf.input + leaf.item * leaf.output)


def _float8_dynamic_moved(leaf: Leaf) -> int:
    """The input is searched for its largest value, becomes float32, is scaled, cut off and made float8."""
    return (leaf.item + (leaf.item + 4) + 2 * 8 + 5) * leaf.input


def _float8_dynamic_fused(leaf: Leaf) -> int:
    """The input is searched for its largest value, then read and written in float8."""
    return (2 * leaf.item + 1) * leaf.input


# ---- int4 -----------------------------------------------------------------------------------------------------------
_INT4_GROUP, _INT4_COLUMNS, _INT4_FEATURES = 128, 1024, 8


def _up(number: int, multiple: int) -> int:
    return blocks(number, multiple) * multiple


def _int4(weight: Weight) -> tuple[int, ...]:
    """Half a byte each, and for each 128 a scale and a zero point in bfloat16; padded (`Int4TilePackedTo4dTensor`)."""
    columns, features = _up(weight.columns, _INT4_COLUMNS), _up(features_of(weight), _INT4_FEATURES)
    return columns * features // 2, columns // _INT4_GROUP * features * 2 * 2


def _int4_making(weight: Weight, on_cpu: bool) -> int:
    """Padded, its values in int32, and pairs of those on the way to bytes: read from the source, not measured."""
    return 10 * _up(weight.columns, _INT4_COLUMNS) * _up(features_of(weight), _INT4_FEATURES)


def _int4_held(leaf: Leaf) -> int:
    """A padded copy of the input, and the product, once more without its padding where it has one."""
    features = _up(leaf.features, _INT4_FEATURES)
    cut = leaf.output if features != leaf.features else 0
    return leaf.item * (leaf.rows * (_up(leaf.columns, _INT4_COLUMNS) + features) + cut)


def _int4_moved(leaf: Leaf) -> int:
    """The input is copied into its padding."""
    return 2 * leaf.item * leaf.rows * _up(leaf.columns, _INT4_COLUMNS)


TORCHAO: Mapping[str, Format] = MappingProxyType({
    "int8": Format(_int8, _int8_held, _int8_making, 0.0088, _int8_moved),
    "int8 dynamic": Format(
        _int8, _int8_dynamic_held, _int8_making, 0.0122, _int8_dynamic_moved, "int8", _int8_dynamic_fused
    ),
    "float8": Format(with_scales, _float8_held, _float8_making, E4M3_ERROR, _float8_moved, fused=_float8_fused),
    "float8 dynamic": Format(
        _float8_dynamic, _float8_dynamic_held, _float8_dynamic_making, 0.0373, _float8_dynamic_moved, "float8_e4m3fn",
        _float8_dynamic_fused,
    ),
    "int4": Format(_int4, _int4_held, _int4_making, 0.0998, _int4_moved),
})  # fmt: skip
