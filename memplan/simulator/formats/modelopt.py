"""The formats of NVIDIA's ModelOpt, as version 0.47 stores them once compressed, and computes with them.

Until `mtq.compress` its weights keep their dtype and take as much as before; the largest magnitude of each block, from
which scales were made, stays beside these. A weight is made anew by ordinary operations of PyTorch, on CUDA as on the
CPU, where bytes, `held` and `making` are measured; `moved` is read from the source (torch/quantization/qtensor). Where
ModelOpt has compiled its CUDA extension, its kernel makes int4 weights with less.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from memplan.facts import ITEM_SIZE, Weight
from memplan.simulator.formats.contract import Format, Leaf, features_of

_INT4_BLOCK, _NVFP4_BLOCK = 128, 16
_LONG, _FLOAT = 8, 4


def _largest(making: Callable[[Leaf], int]) -> Callable[[Leaf], int]:
    """The most of making a weight, and of the weight in full beside the product."""
    return lambda leaf: max(making(leaf), leaf.item * (leaf.weight + leaf.output))


# ---- int8 -----------------------------------------------------------------------------------------------------------
def _int8(weight: Weight) -> tuple[int, ...]:
    """A byte each, and for each row its largest magnitude and its scale, in the weight's dtype."""
    by_row = ITEM_SIZE[weight.dtype] * features_of(weight)
    return weight.numel, by_row, by_row


def _int8_making(weight: Weight, on_cpu: bool) -> int:
    """The quotients and what they are rounded to, and five numbers for each row (`INT8QTensor.quantize`)."""
    return ITEM_SIZE[weight.dtype] * (2 * weight.numel + 5 * features_of(weight))


def _int8_making_weight(leaf: Leaf) -> int:
    """In full before and after it is scaled (`INT8QTensor.dequantize`)."""
    return 2 * leaf.item * leaf.weight


def _int8_moved(leaf: Leaf) -> int:
    """The weight is written in full, then read and written again to scale it."""
    return (1 + 3 * leaf.item) * leaf.weight


# ---- int4 -----------------------------------------------------------------------------------------------------------
def _int4(weight: Weight) -> tuple[int, ...]:
    """Half a byte each, and for each 128 their largest magnitude in float32 and a scale in the weight's dtype."""
    groups = weight.numel // _INT4_BLOCK
    return weight.numel // 2, _FLOAT * groups, ITEM_SIZE[weight.dtype] * groups


def _int4_making(weight: Weight, on_cpu: bool) -> int:
    """The products with the scales, what they are rounded to and what that is cut off to (`INT4QTensor.quantize`)."""
    item, groups = ITEM_SIZE[weight.dtype], weight.numel // _INT4_BLOCK
    return 3 * item * weight.numel + (_FLOAT + 2 * item) * groups


def _int4_making_weight(leaf: Leaf) -> int:
    """Both halves in 64 bits, and one of them once more less its offset (`INT4QTensor.dequantize`)."""
    return 3 * _LONG * leaf.weight // 2


def _int4_moved(leaf: Leaf) -> int:
    """Each half is cut out, widened to 64 bits, less its offset, and divided; both are then put together."""
    return (2 + 9 + 16 + 8 + leaf.item + 2 * leaf.item) * leaf.weight


# ---- nvfp4 ----------------------------------------------------------------------------------------------------------
def _nvfp4(weight: Weight) -> tuple[int, ...]:
    """Half a byte each, for each 16 a scale in float8, and of all the largest magnitude and a scale in float32."""
    return weight.numel // 2, weight.numel // _NVFP4_BLOCK, ITEM_SIZE[weight.dtype], _FLOAT


def _nvfp4_making(weight: Weight, on_cpu: bool) -> int:
    """Scaled in float32, signs, places in int32 and in a byte, and the scales (`NVFP4QTensor._cast_fp4`)."""
    return 10 * weight.numel + weight.numel // _NVFP4_BLOCK


def _nvfp4_making_weight(leaf: Leaf) -> int:
    """Unpacked in its dtype, in 64 bits and in float32; the scales in float32 twice (`NVFP4QTensor.dequantize`)."""
    return (leaf.item + _LONG + _FLOAT) * leaf.weight + 2 * _FLOAT * leaf.weight // _NVFP4_BLOCK


def _nvfp4_moved(leaf: Leaf) -> int:
    """It is unpacked, widened to 64 bits, looked up, scaled in float32, and becomes the input's dtype."""
    narrowed = _FLOAT + leaf.item if leaf.item != _FLOAT else 0
    return (3 + leaf.item + leaf.item + _LONG + _LONG + _FLOAT + 2 * _FLOAT + narrowed) * leaf.weight


MODELOPT: Mapping[str, Format] = MappingProxyType({
    "modelopt int8": Format(_int8, _largest(_int8_making_weight), _int8_making, 0.0085, _int8_moved),
    "modelopt int4": Format(_int4, _largest(_int4_making_weight), _int4_making, 0.1156, _int4_moved),
    "modelopt nvfp4": Format(_nvfp4, _largest(_nvfp4_making_weight), _nvfp4_making, 0.0948, _nvfp4_moved),
})  # fmt: skip
