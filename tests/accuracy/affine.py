"""The formats of torchao's AffineQuantizedTensor: what quantized layers stored and held before its Int8Tensor.

Its scales had the dtype of the weight (`_choose_qparams_affine` in quant_primitives.py of torchao 0.5 to 0.11, where
`scale_dtype` is None), and symmetric int8 came with zero points in int64 (`int8_weight_only` in quant_api.py).
"""

from collections.abc import Mapping
from dataclasses import replace

from memplan.facts import ITEM_SIZE, Weight
from memplan.simulator.formats import FORMATS, Format, Leaf

ZERO_POINT = 8


def _int8(weight: Weight) -> tuple[int, ...]:
    features = weight.numel // weight.columns
    return weight.numel, ITEM_SIZE[weight.dtype] * features, ZERO_POINT * features


def _float8(weight: Weight) -> tuple[int, ...]:
    return weight.numel, ITEM_SIZE[weight.dtype] * (weight.numel // weight.columns)


def _float8_by_row(weight: Weight) -> tuple[int, ...]:
    return weight.numel, 4 * (weight.numel // weight.columns)


def _int8_making(weight: Weight, on_cpu: bool) -> int:
    """Its scales, and the weight scaled and rounded in its own dtype (`_quantize_affine_no_dtype_cast`)."""
    return 2 * weight.nbytes + sum(_int8(weight)[1:])


def _float8_making(weight: Weight, on_cpu: bool) -> int:
    """Its scales, and the weight scaled and clamped in its own dtype (`quantize_affine_floatx`)."""
    return 2 * weight.nbytes + sum(_float8(weight)[1:])


def _float8_dynamic_making(weight: Weight, on_cpu: bool) -> int:
    """Scaled and clamped in float32, since its scale is (`apply_float8_dynamic_activation_quant`)."""
    return 2 * 4 * weight.numel


def _int8_dynamic_held(leaf: Leaf) -> int:
    """The input twice while it is rounded; the product in 32 bits beside the scaled one (`int_scaled_matmul`)."""
    return max(2 * leaf.item * leaf.input, leaf.input + (4 + leaf.item) * leaf.output)


def _float8_held(leaf: Leaf) -> int:
    """The weight in full twice, unscaled and scaled (`_dequantize_affine_no_dtype_check`), then the product."""
    return leaf.item * max(2 * leaf.weight, leaf.weight + leaf.output)


def _float8_dynamic_held(leaf: Leaf) -> int:
    """The input scaled and clamped in float32 while it is rounded; then its bytes and the product."""
    return max(8 * leaf.input, leaf.input + leaf.item * leaf.output)


FORMATS_THEN: Mapping[str, Format] = {
    **FORMATS,
    "int8": replace(FORMATS["int8"], tensors=_int8, making=_int8_making),
    "int8 dynamic": replace(FORMATS["int8 dynamic"], tensors=_int8, held=_int8_dynamic_held, making=_int8_making),
    "float8": replace(FORMATS["float8"], tensors=_float8, held=_float8_held, making=_float8_making),
    "float8 dynamic": replace(FORMATS["float8 dynamic"], held=_float8_dynamic_held, making=_float8_dynamic_making),
}
"""FORMATS with those of torchao as they were."""

BY_ROW = replace(FORMATS_THEN["float8 dynamic"], tensors=_float8_by_row)
"""Their float8 with float8 activations and a scale for each row."""
