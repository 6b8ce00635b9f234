"""The formats of optimum-quanto, as version 0.2.7 stores them and computes with them on CUDA.

Its float8 layers take Marlin's kernels where quanto's CUDA extension has been compiled, and make no weight then: what
is held without them counts. Its 4 bits take PyTorch's own kernel for them (TinyGemm), which needs bfloat16 and groups
of 128; AWQ's kernel for float16, which has to be compiled, is not reckoned.
"""

from collections.abc import Mapping
from types import MappingProxyType

from memplan.facts import ITEM_SIZE, Weight
from memplan.simulator.formats.contract import E4M3_ERROR, Format, Leaf, features_of


def _tensors(weight: Weight) -> tuple[int, ...]:
    """A byte each, for each row a scale in the weight's dtype, and two scales of activations (`QModuleMixin`)."""
    item = ITEM_SIZE[weight.dtype]
    return weight.numel, item * features_of(weight), item, item


def _making(weight: Weight, on_cpu: bool) -> int:
    """The quotients and what they are rounded to, and the result; the layer's own weights need no gradient."""
    item = ITEM_SIZE[weight.dtype]
    return (2 * item + 1) * weight.numel + item * features_of(weight) + 2 * item


def _int8_held(leaf: Leaf) -> int:
    """The scaled weight in full (`qbytes_mm` in quanto's library); a bias is added to a copy."""
    return leaf.item * max(leaf.weight + leaf.output, 2 * leaf.output if leaf.bias else 0)


def _float8_held(leaf: Leaf) -> int:
    """The weight in full twice, before and after it is scaled."""
    return max(2 * leaf.item * leaf.weight, _int8_held(leaf))


def _int8_moved(leaf: Leaf) -> int:
    """The weight is read, written scaled in full, and a bias added to a copy of the product."""
    return (1 + leaf.item) * leaf.weight + (2 * leaf.item * leaf.output if leaf.bias else 0)


def _float8_moved(leaf: Leaf) -> int:
    """The weight is written in full, then read and written again to scale it."""
    return _int8_moved(leaf) + 2 * leaf.item * leaf.weight


# ---- 4 bits ---------------------------------------------------------------------------------------------------------
_GROUP = 128


def _int4(weight: Weight) -> tuple[int, ...]:
    """Half a byte each, for each 128 a scale and a shift in one tensor, and two scales of activations.

    `TinyGemmWeightQBitsTensor` in quanto/tensor/weights/tinygemm.
    """
    item = ITEM_SIZE[weight.dtype]
    return weight.numel // 2, 2 * item * (weight.numel // _GROUP), item, item


def _int4_making(weight: Weight, on_cpu: bool) -> int:
    """A byte each, the same in int32, and then the result, or on CUDA int32 twice on the way to pairs in a byte.

    `TinyGemmPackedTensor.pack`: the CPU's part is measured, that of CUDA read from the source.
    """
    pairs = weight.numel // 2 if on_cpu else 4 * weight.numel
    return 5 * weight.numel + pairs + 2 * ITEM_SIZE[weight.dtype] * (weight.numel // _GROUP)


def _int4_held(leaf: Leaf) -> int:
    """The product; a bias is added to a copy (`TinyGemmQBitsLinearFunction`)."""
    return leaf.item * leaf.output * (2 if leaf.bias else 1)


def _int4_moved(leaf: Leaf) -> int:
    """A bias is added to a copy of the product."""
    return 2 * leaf.item * leaf.output if leaf.bias else 0


QUANTO: Mapping[str, Format] = MappingProxyType({
    "quanto int8": Format(_tensors, _int8_held, _making, 0.0088, _int8_moved),
    "quanto float8": Format(_tensors, _float8_held, _making, E4M3_ERROR, _float8_moved),
    "quanto int4": Format(_int4, _int4_held, _int4_making, 0.0998, _int4_moved),
})  # fmt: skip
