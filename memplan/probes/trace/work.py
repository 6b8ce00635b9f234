"""What an op does: its family, FLOPs, and the bytes that it reads and writes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from memplan.facts import ATTENTION, CONVOLUTION, EFFICIENT, ELEMENTWISE, MATMUL, Ops
from memplan.probes.trace.operands import extent, tensors_in


def work(func: Any, args: Any, kwargs: Mapping[str, Any], out: Any, held: int) -> Ops | None:
    """What `func` did for `out`; its `held` bytes of workspace are written and read. None if it moved nothing."""
    name = func._overloadpacket.__name__
    if name in _IDLE:
        return None
    inputs, outputs = tensors_in((*args, *kwargs.values())), tensors_in((out,))
    count = _COUNTS.get(name) or flop_registry.get(func._overloadpacket)
    flops = int(count(*args, **kwargs, out_val=out)) if count else 0
    read = outputs if name in _GATHERS else inputs
    moved = sum(map(extent, read)) + sum(map(extent, outputs)) + 2 * held
    return Ops(_family(name) if count else ELEMENTWISE, dtype_of(inputs or outputs), 1, flops, moved)


def dtype_of(operands: list[torch.Tensor]) -> str:
    """The dtype of the largest operand: scales, biases and masks are small."""
    return str(max(operands, key=torch.Tensor.numel).dtype).removeprefix("torch.") if operands else ""


def _family(name: str) -> str:
    if "conv" in name:
        return CONVOLUTION
    if "scaled_dot_product" in name:
        return EFFICIENT if "efficient" in name else ATTENTION
    return MATMUL


_IDLE = frozenset(("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "resize_"))
"""Ops that allocate or look at memory, and neither read nor write it."""
_GATHERS = frozenset(("embedding", "index_select", "gather"))
"""Ops that read as much as they write, however large the table is."""


def _four_bit_flops(rows: torch.Tensor, packed: torch.Tensor, shape: Any, *_: Any, **__: Any) -> int:
    """A product of (..., K) with bitsandbytes' 4-bit weight of `shape` (N, K)."""
    return 2 * rows.numel() * int(shape[0])


_COUNTS: dict[str, Callable[..., int]] = {"gemm_4bit": _four_bit_flops}
"""Floating-point operations of ops that PyTorch's own registry does not know."""
