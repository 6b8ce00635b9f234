"""The formats of bitsandbytes, as version 0.50 stores them and computes with them on CUDA."""

from collections.abc import Mapping
from types import MappingProxyType

from memplan.facts import Weight
from memplan.simulator.formats.contract import Format, Leaf, blocks, features_of, widened, with_scales

_BLOCK, _NESTED_BLOCK = 64, 256
_CODE, _NESTED_CODE, _OFFSET = 16 * 4, 256 * 4, 4
_FEW_ROWS = 4


# ---- 4 bits ---------------------------------------------------------------------------------------------------------
def _four_bit(weight: Weight) -> tuple[int, ...]:
    """Half a byte each, and for each block of 64 a scale in float32 (`quantize_4bit` in bitsandbytes/functional.py)."""
    return blocks(weight.numel, 2), 4 * blocks(weight.numel, _BLOCK), _CODE


def _nested(weight: Weight) -> tuple[int, ...]:
    """The scales in 8 bits, with one in float32 for each 256 of them, and their mean."""
    scales = blocks(weight.numel, _BLOCK)
    nested = 4 * blocks(scales, _NESTED_BLOCK)
    return blocks(weight.numel, 2), scales, _CODE, _OFFSET, nested, _NESTED_CODE


def _four_bit_making(weight: Weight, on_cpu: bool) -> int:
    """A kernel writes the result; on the CPU ops do, with the weight in float32 (bitsandbytes/backends/default)."""
    if not on_cpu:
        return sum(_four_bit(weight))
    return (10 + widened(weight)) * weight.numel + 4 * blocks(weight.numel, _BLOCK)


def _nested_making(weight: Weight, on_cpu: bool) -> int:
    """The scales less their mean are in float32 beside the result for a moment."""
    scales = 4 * blocks(weight.numel, _BLOCK)
    return max(_four_bit_making(weight, on_cpu), sum(_nested(weight)) + 2 * scales)


def _fp4_making(weight: Weight, on_cpu: bool) -> int:
    """On the CPU fp4 is looked up with indices of 64 bits besides."""
    return _four_bit_making(weight, on_cpu) + 14 * weight.numel * on_cpu


def _fp4_nested_making(weight: Weight, on_cpu: bool) -> int:
    return max(_fp4_making(weight, on_cpu), _nested_making(weight, on_cpu))


def _four_bit_held(leaf: Leaf) -> int:
    """The weight in full; for up to 4 rows a kernel does without (`_GEMM_4BIT_CUSTOM_FLOOR_M`)."""
    return leaf.item * (leaf.output + (leaf.weight if leaf.rows > _FEW_ROWS else 0))


def _nested_held(leaf: Leaf) -> int:
    """The scales in float32 too, twice: with and without their mean (`_dequant_linear_fallback`)."""
    scales = 2 * 4 * blocks(leaf.weight, _BLOCK) if leaf.rows > _FEW_ROWS else 0
    return _four_bit_held(leaf) + scales


# ---- 8 bits ---------------------------------------------------------------------------------------------------------
_DIVISIBLE = 4
"""cuBLASLt multiplies in 8 bits where the columns are divisible by this; else it is done in float32."""


def _eight_bit_making(weight: Weight, on_cpu: bool) -> int:
    """The weight in float16 first; on the CPU its products and their rounded values in float32 then."""
    half = 0 if weight.dtype == "float16" else 2 * weight.numel
    return half + (8 * weight.numel + 8 * features_of(weight) if on_cpu else sum(with_scales(weight)))


def _eight_bit_held(leaf: Leaf) -> int:
    """The most of what quantizing the input and multiplying hold (`MatMul8bitLt`, backends/cuda/ops.py).

    The input, in float16 where it was not, has beside it what it becomes: a byte for each element and a scale for each
    row. Then its absolute values, and whether each is an outlier. Of all that the bytes and the scales stay for the
    product, which is in int32, then in float16, and in the layer's dtype where that is another.
    """
    other = leaf.dtype != "float16"
    kept = leaf.input + 4 * leaf.rows
    rounding = kept + (2 * other + 2 + 1) * leaf.input
    results = 2 * leaf.output + leaf.item * leaf.output * other
    if leaf.columns % _DIVISIBLE:  # both factors and the product in float32, then that in int32
        results = max(results, 4 * (leaf.input + leaf.weight + leaf.output), 8 * leaf.output)
    return max(rounding, kept + 4 * leaf.output + results)


BITSANDBYTES: Mapping[str, Format] = MappingProxyType({
    "nf4": Format(_four_bit, _four_bit_held, _four_bit_making, 0.0920),
    "nf4 nested": Format(_nested, _nested_held, _nested_making, 0.0920),
    "fp4": Format(_four_bit, _four_bit_held, _fp4_making, 0.1218),
    "fp4 nested": Format(_nested, _nested_held, _fp4_nested_making, 0.1218),
    "bnb int8": Format(with_scales, _eight_bit_held, _eight_bit_making, 0.0120, dequantizes=False),
})  # fmt: skip
