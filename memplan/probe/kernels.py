"""Makes the dry run choose the kernels of the planned device instead of the CPU's, where the two hold other memory."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from memplan.probe.ledger import Ledger

FLASH_HEAD_DIM = 256
"""Largest head dimension of PyTorch's flash-attention kernels (`check_head_dim_size_flash`)."""
EFFICIENT_OUTPUT_DIM = 128
"""Above this head dimension the memory-efficient kernel accumulates its output in a float32 buffer."""
MASK_ALIGNMENT = 16
"""Elements to which the memory-efficient kernel pads the last dimension of a mask."""


class Kernels(TorchFunctionMode):
    """Function mode for one device kind, "cuda" or "cpu".

    It also answers code that wants the value of a fake tensor (`item`, `numpy`, …) with zeros, and keeps a sentence
    about it in `assumptions`: such a value is not known before the run.
    """

    def __init__(self, ledger: Ledger, device: str) -> None:
        """Kernels of `device`, accounted for in `ledger`."""
        super().__init__()
        self.ledger = ledger
        self.assumptions: dict[str, None] = {}
        self._table: dict[Any, Callable[..., Any]] = {func: self._value(func) for func in _VALUES}
        if device == "cuda":
            self._table[F.scaled_dot_product_attention] = self._attention
            self._table[F.rms_norm] = self._table[torch.rms_norm] = self._rms_norm
            self._table[F.group_norm] = _group_norm

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace `func` where the device runs another kernel."""
        replacement = self._table.get(func)
        if replacement is not None and args and isinstance(args[0], FakeTensor):
            return replacement(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _value(self, func: Any) -> Callable[..., Any]:
        def answer(tensor: FakeTensor, *args: Any, **kwargs: Any) -> Any:
            if tensor.constant is not None:
                return func(tensor.constant)
            self.assumptions[f"{func.__name__}() of a {tuple(tensor.shape)} tensor is taken as zero"] = None
            with unset_fake_temporarily():
                return func(torch.zeros(tensor.shape, dtype=tensor.dtype))

        return answer

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """What `scaled_dot_product_attention` holds on a CUDA device: (B, H, S, D) in, (B, H, S, Dv) out.

        Flash keeps the layout of the query and writes a float32 log-sum-exp. With a mask, in float32 or beyond a head
        dimension of 256 the memory-efficient kernel runs: it turns a boolean mask into the query's dtype, pads it to
        16 elements and writes (B, S, H, Dv). Source: ATen/native/transformers/cuda/{sdp_utils.cpp,attention.cu}.
        """
        half = query.dtype in (torch.float16, torch.bfloat16)
        if half and attn_mask is None and query.shape[-1] == value.shape[-1] <= FLASH_HEAD_DIM:
            held = [query.new_empty(query.shape[:-1], dtype=torch.float32)]
            out = torch.empty_like(query)
        else:
            held = _efficient_buffers(query, value, attn_mask)
            batch, heads, length = query.shape[:-1]
            out = query.new_empty((batch, length, heads, value.shape[-1])).transpose(1, 2)
        flops = 2 * key.shape[-2] * (prod(query.shape) + prod(out.shape))
        traffic = sum(t.numel() * t.element_size() for t in (query, key, value, out))
        self.ledger.note("scaled_dot_product_attention", flops=flops, traffic=traffic)
        del held
        return out

    def _rms_norm(
        self,
        input: torch.Tensor,
        normalized_shape: Sequence[int],
        weight: torch.Tensor | None = None,
        eps: float | None = None,
    ) -> torch.Tensor:
        """What `rms_norm` holds on a CUDA device: the result and one float32 per row, with a weight of the same dtype.

        With another dtype it runs op by op, as on a CPU. Source: `rms_norm_symint` and `_fused_rms_norm_cuda` of
        ATen/native/{layer_norm.cpp,cuda/layer_norm_kernel.cu}.
        """
        if weight is not None and weight.dtype != input.dtype:
            return F.rms_norm(input, list(normalized_shape), weight, eps)
        rows = input.contiguous()
        held = rows.new_empty(rows.shape[: -len(normalized_shape)], dtype=torch.float32)
        out = torch.empty_like(rows)
        self.ledger.note("rms_norm", traffic=2 * out.numel() * out.element_size())
        del rows, held
        return out


_VALUES = (torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.numpy)


def _efficient_buffers(query: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
    """What the memory-efficient kernel allocates beside its output."""
    held: list[torch.Tensor] = []
    if mask is not None and mask.dtype == torch.bool:
        mask = mask.new_empty(mask.shape, dtype=query.dtype)
        held.append(mask)
    if mask is not None and mask.shape[-1] % MASK_ALIGNMENT:
        padded = -(-mask.shape[-1] // MASK_ALIGNMENT) * MASK_ALIGNMENT
        held.append(mask.new_empty((*mask.shape[:-1], padded)))
    if value.shape[-1] > EFFICIENT_OUTPUT_DIM and query.dtype != torch.float32:
        held.append(query.new_empty((*query.shape[:-1], value.shape[-1]), dtype=torch.float32))
    return held


def _group_norm(input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """CUDA devices normalise a channels-first copy; only CPUs keep channels last (ATen/native/group_norm.cpp)."""
    return F.group_norm(input.contiguous(), *args, **kwargs)
