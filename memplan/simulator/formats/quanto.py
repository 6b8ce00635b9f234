"""The formats of optimum-quanto, as version 0.2.7 stores them and computes with them on CUDA.

Its float8 layers take Marlin's kernels where quanto's CUDA extension has been compiled, and make no weight then: what
is held without them counts.
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
    """The new layer's own weight, as large as the old, its quotients and what they are rounded to, and the result."""
    item = ITEM_SIZE[weight.dtype]
    return (4 * item + 1) * weight.numel + 2 * item * features_of(weight) + 4 * item


def _int8_held(leaf: Leaf) -> int:
    """The scaled weight in full (`qbytes_mm` in quanto's library); a bias is added to a copy."""
    return leaf.item * max(leaf.weight + leaf.output, 2 * leaf.output if leaf.bias else 0)


def _float8_held(leaf: Leaf) -> int:
    """The weight in full twice, before and after it is scaled."""
    return max(2 * leaf.item * leaf.weight, _int8_held(leaf))


QUANTO: Mapping[str, Format] = MappingProxyType({
    "quanto int8": Format(_tensors, _int8_held, _making, 0.0088),
    "quanto float8": Format(_tensors, _float8_held, _making, E4M3_ERROR),
})  # fmt: skip
