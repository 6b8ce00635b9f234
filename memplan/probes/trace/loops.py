"""Ops for which inductor writes loops, and how long the rows are that they reduce."""

from collections.abc import Sequence
from typing import Any

import torch

LONG_ROW = 8192
"""Elements above which a reduction is split over several blocks and a kernel joins their results.

`inner_reduction_splits` of torch/_inductor/choices.py.
"""
_MOVED = frozenset((
    "_safe_softmax", "_softmax", "_to_copy", "_unsafe_index", "arange", "cat", "clone", "constant_pad_nd", "copy_",
    "embedding",
    "expand_copy", "fill_", "flip", "full", "full_like", "gather", "index", "index_select", "native_group_norm",
    "native_layer_norm", "_fused_rms_norm", "new_full", "new_ones", "new_zeros", "ones", "ones_like", "pad",
    "reflection_pad2d", "repeat", "repeat_interleave", "replication_pad2d", "replication_pad3d", "roll", "select_copy",
    "slice_scatter", "stack", "tril", "triu", "upsample_bilinear2d", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "upsample_trilinear3d", "zero_", "zeros", "zeros_like",
))  # fmt: skip
"""Ops beside those that PyTorch tags as pointwise or reductions for which inductor writes loops."""
NORM = "native_group_norm"


def fusible(func: Any, name: str) -> bool:
    """Whether inductor writes a loop for the op `func` of this name, and calls no library."""
    tags = func.tags
    return func.namespace == "aten" and (torch.Tag.pointwise in tags or torch.Tag.reduction in tags or name in _MOVED)


def row(name: str, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> int:
    """Elements that one result of a reduction is made of; 1 for other ops."""
    if name == NORM:
        return inputs[0].numel() // max(outputs[1].numel(), 1)
    given, made = (max((t.numel() for t in ts), default=0) for ts in (inputs, outputs))
    return given // max(made, 1)
