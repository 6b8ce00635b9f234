"""Makes the dry run choose the kernels of the planned device instead of the CPU's, where the two hold other memory."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from memplan.facts import ATTENTION, ELEMENTWISE, Ops
from memplan.probes.fakes.values import read
from memplan.probes.trace import int8
from memplan.probes.trace.dependent import UNKNOWN, sentence
from memplan.probes.trace.ledger import Ledger
from memplan.probes.trace.operands import extent
from memplan.probes.trace.work import dtype_of

FLASH_HEAD_DIM = 256
"""Largest head dimension of PyTorch's flash-attention kernels (`check_head_dim_size_flash`)."""
EFFICIENT_OUTPUT_DIM = 128
"""Above this head dimension the memory-efficient kernel accumulates its output in a float32 buffer."""
FLASH_SINCE = BFLOAT16_SINCE = (8, 0)
"""The compute capability from which flash attention runs, and the memory-efficient kernel takes bfloat16."""
MASK_ALIGNMENT = 16
"""Elements to which the memory-efficient kernel pads the last dimension of a mask."""


class Kernels(TorchFunctionMode):
    """Function mode for one device kind, "cuda" or "cpu", and for "cuda" one compute capability.

    It also answers code that wants a fake tensor as an array: with its values where they are known, else with zeros,
    which the ledger then says.
    """

    def __init__(self, ledger: Ledger, device: str, capability: tuple[int, int] = FLASH_SINCE) -> None:
        """Kernels of `device`, accounted for in `ledger`."""
        super().__init__()
        self.ledger = ledger
        self.capability = capability
        self._table: dict[Any, Callable[..., Any]] = {torch.Tensor.numpy: self._array, **int8.ops(ledger, device)}
        if device == "cuda":
            self._table[F.scaled_dot_product_attention] = self._attention
            self._table[F.rms_norm] = self._table[torch.rms_norm] = self._rms_norm
            self._table[F.group_norm] = _group_norm

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace `func` where the device runs another kernel."""
        replacement, kwargs = self._table.get(func), kwargs or {}
        first = next(iter((*args, *kwargs.values())), None)  # diffusers names query, key and value
        if replacement is not None and isinstance(first, FakeTensor):
            return replacement(*args, **kwargs)
        return func(*args, **kwargs)

    def _array(self, tensor: FakeTensor, *args: Any, **kwargs: Any) -> Any:
        known = read(tensor)
        if known is None:
            self.ledger.assume(f"{sentence('numpy', tensor, self.ledger)} is taken as zeros, {UNKNOWN}")
        with _disable_current_modes():
            return (torch.zeros(tensor.shape, dtype=tensor.dtype) if known is None else known.clone()).numpy()

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

        Flash keeps the layout of the query and writes a float32 log-sum-exp. With a mask, in float32, beyond a head
        dimension of 256 or before compute capability 8.0 the memory-efficient kernel runs: it turns a boolean mask
        into the query's dtype, pads it to 16 elements and writes (B, S, H, Dv). What that does not take either, such
        as bfloat16 before 8.0, is computed op by op, with all scores. On 9.x and 10.x PyTorch may prefer cuDNN's
        kernel, which holds no more than flash. Source: ATen/native/transformers/cuda/{sdp_utils.cpp,attention.cu}.
        """
        flash = self._takes_flash(query, value, attn_mask)
        if not flash and not self._takes_efficient(query, key, value):
            self._say_whole(query)
            settings = dict(zip(("dropout_p", "is_causal"), args, strict=False)) | kwargs
            mask = _added(attn_mask, query.dtype)
            return torch.ops.aten._scaled_dot_product_attention_math(query, key, value, mask, **settings)[0]
        if flash:
            held = [query.new_empty(query.shape[:-1], dtype=torch.float32)]
            out = torch.empty_like(query)
        else:
            held = _efficient_buffers(query, value, attn_mask)
            batch, heads, length = query.shape[:-1]
            out = query.new_empty((batch, length, heads, value.shape[-1])).transpose(1, 2)
        flops = 2 * key.shape[-2] * (prod(query.shape) + prod(out.shape))
        traffic = sum(map(extent, (query, key, value, out)))
        work = Ops(ATTENTION, dtype_of([query]), 1, flops, traffic)
        self.ledger.note("scaled_dot_product_attention", work)
        del held
        return out

    def _say_whole(self, query: torch.Tensor) -> None:
        """Says once of each component that its attention falls back to separate ops."""
        least = ".".join(map(str, BFLOAT16_SINCE))
        old = query.dtype == torch.bfloat16 and self.capability < BFLOAT16_SINCE
        cure = f"in bfloat16 before compute capability {least}: float16 has one" if old else "of heads of these sizes"
        part = self.ledger.place.partition(".")[0] or "the pipeline"
        self.ledger.assume(f"{part}: all scores of attention are held at once, as PyTorch has no kernel for it {cure}")

    def _takes_flash(self, query: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> bool:
        """`can_use_flash_attention` of sdp_utils.cpp."""
        half = query.dtype in (torch.float16, torch.bfloat16)
        fits = mask is None and query.shape[-1] == value.shape[-1] <= FLASH_HEAD_DIM
        return half and fits and self.capability >= FLASH_SINCE

    def _takes_efficient(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
        """`can_use_mem_efficient_attention` of sdp_utils.cpp, whose kernels read 16 bytes at a time."""
        tensor_cores = self.capability >= FLASH_SINCE or query.dtype == torch.float16
        alignment = 16 // query.dtype.itemsize if tensor_cores else 1
        aligned = query.shape[-1] == key.shape[-1] and not (query.shape[-1] % alignment or value.shape[-1] % alignment)
        return aligned and (query.dtype != torch.bfloat16 or self.capability >= BFLOAT16_SINCE)

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
        self.ledger.note("rms_norm", Ops(ELEMENTWISE, dtype_of([out]), 1, 0, 2 * extent(out)))
        del rows, held
        return out


def _added(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """A boolean mask as what is added to the scores."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), float("-inf"))


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
