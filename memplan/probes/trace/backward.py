"""Kernels of a CUDA device as training runs them: what each keeps for its backward, and what that allocates."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from memplan.probes.trace.attention import MASK_ALIGNMENT, Attention, Mask


class AttentionWithBackward(Attention):
    """The same choice of kernels, run as the ops whose backwards PyTorch knows.

    Each keeps query, key, value, result and log-sum-exp; the meta kernels of the ops say how large those are.
    """

    def flash(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """A result in the layout of the query, and a float32 log-sum-exp of each of its rows, which is kept."""
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]

    def efficient(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Mask) -> torch.Tensor:
        """A result that is contiguous as (B, S, H, Dv); what is made of the mask is kept too."""
        bias = None if mask is None else _padded(mask, query.dtype)
        out = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, True)
        return out[0]

    def note(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor, *, family: str = ""
    ) -> None:
        """Nothing: the ops are counted as they run."""


def _padded(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The mask as the memory-efficient kernel wants it: added to the scores, in rows of a multiple of 16."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), float("-inf"))
    missing = -mask.shape[-1] % MASK_ALIGNMENT
    return F.pad(mask, (0, missing))[..., : mask.shape[-1]] if missing else mask


class _RmsNorm(torch.autograd.Function):
    """The fused kernel: it keeps its input, its weight and one float32 per row (cuda/layer_norm_kernel.cu)."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor | None, width: int) -> torch.Tensor:
        """The result, and what is kept."""
        scale = rows.new_empty(rows.shape[:-width], dtype=torch.float32)
        ctx.save_for_backward(rows, weight, scale)
        return torch.empty_like(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """A gradient of the rows, and one of the weight."""
        rows, weight, _ = ctx.saved_tensors
        needs_rows, needs_weight, _ = ctx.needs_input_grad
        own = torch.empty_like(rows) if needs_rows else None
        return own, torch.empty_like(weight) if needs_weight else None, None


def rms_norm_with_backward(
    input: torch.Tensor, normalized_shape: Sequence[int], weight: torch.Tensor | None = None, eps: float | None = None
) -> torch.Tensor:
    """The fused kernel where weight and input have one dtype; else op by op, as in a dry run without backward."""
    if weight is not None and weight.dtype != input.dtype:
        return F.rms_norm(input, list(normalized_shape), weight, eps)
    made: torch.Tensor = _RmsNorm.apply(input.contiguous(), weight, len(normalized_shape))  # type: ignore[no-untyped-call]
    return made
