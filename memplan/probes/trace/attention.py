"""What PyTorch's attention holds on a CUDA device: the rules that choose its kernel, and what each one allocates."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.backends import cuda as allowed

from memplan.facts import ATTENTION, EFFICIENT, Ops
from memplan.probes.trace.ledger import Ledger
from memplan.probes.trace.operands import extent
from memplan.probes.trace.work import dtype_of

FLASH_HEAD_DIM = 256
"""Largest head dimension of PyTorch's flash-attention kernels (`check_head_dim_size_flash`)."""
CUDNN_HEAD_DIM = 128
"""Largest head dimension of cuDNN's on any card; on compute capability 9.0 and 10.x newer ones take 256."""
CUDNN_MULTIPLE = 8
"""Of what cuDNN's head dimensions are multiples (`check_cudnn_tensor_shapes`)."""
EFFICIENT_OUTPUT_DIM = 128
"""Above this head dimension the memory-efficient kernel accumulates its output in a float32 buffer."""
FLASH_SINCE = BFLOAT16_SINCE = (8, 0)
"""The compute capability from which flash attention runs, and the memory-efficient kernel takes bfloat16."""
MASK_ALIGNMENT = 16
"""Elements to which the memory-efficient kernel pads the last dimension of a mask."""
HALF = (torch.float16, torch.bfloat16)
Mask = torch.Tensor | None


@dataclass(frozen=True)
class Attention:
    """`scaled_dot_product_attention` on a CUDA device of one compute capability, accounted for in `ledger`."""

    ledger: Ledger
    capability: tuple[int, int] = FLASH_SINCE

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: Mask = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(B, H, S, D) in, (B, H, S, Dv) out.

        Flash keeps the layout of the query and writes a float32 log-sum-exp. With a mask, in float32, beyond a head
        dimension of 256 or before compute capability 8.0 the memory-efficient kernel runs: it turns a boolean mask
        into the query's dtype, pads it to 16 elements and writes (B, S, H, Dv). What that does not take either, such
        as bfloat16 before 8.0, is computed op by op, with all scores. On 9.x and 10.x PyTorch may prefer cuDNN's
        kernel, which holds no more than flash. `sdpa_kernel` narrows the choice, as some of diffusers' backends do;
        raises RuntimeError where none is left. Source: ATen/native/transformers/cuda/{sdp_utils.cpp,attention.cu}.
        """
        if allowed.flash_sdp_enabled() and self.takes_flash(query, value, attn_mask):
            return self.flash(query, key, value)
        if allowed.mem_efficient_sdp_enabled() and self.takes_efficient(query, key, value):
            return self.efficient(query, key, value, attn_mask)
        if allowed.math_sdp_enabled():
            if any(_fused_allowed()):
                self._say_whole(query)
            settings = dict(zip(("dropout_p", "is_causal"), args, strict=False)) | kwargs
            mask = _added(attn_mask, query.dtype)
            return torch.ops.aten._scaled_dot_product_attention_math(query, key, value, mask, **settings)[0]
        if allowed.cudnn_sdp_enabled() and self._takes_cudnn(query, value):
            added = _added(attn_mask, query.dtype)
            out = self.flash(query, key, value)
            del added
            return out
        raise RuntimeError(self._none(query, value, attn_mask))

    # -- the kernels ---------------------------------------------------------------------------------------------
    def flash(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """A result in the layout of the query, and a float32 log-sum-exp of each of its rows."""
        held = query.new_empty(query.shape[:-1], dtype=torch.float32)
        out = torch.empty_like(query)
        self.note(query, key, value, out)
        del held
        return out

    def efficient(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Mask) -> torch.Tensor:
        """A result that is contiguous as (B, S, H, Dv), and what is made of the mask."""
        held = _efficient_buffers(query, value, mask)
        batch, heads, length = query.shape[:-1]
        out = query.new_empty((batch, length, heads, value.shape[-1])).transpose(1, 2)
        self.note(query, key, value, out, family=EFFICIENT)
        del held
        return out

    def note(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor, *, family: str = ATTENTION
    ) -> None:
        """One attention on (B, H, S, D) has run: two products, each operand read and written once."""
        flops = 2 * key.shape[-2] * (prod(query.shape) + prod(out.shape))
        traffic = sum(map(extent, (query, key, value, out)))
        self.ledger.note("scaled_dot_product_attention", Ops(family, dtype_of([query]), 1, flops, traffic))

    # -- which one -----------------------------------------------------------------------------------------------
    def takes_flash(self, query: torch.Tensor, value: torch.Tensor, mask: Mask) -> bool:
        """`can_use_flash_attention` of sdp_utils.cpp."""
        fits = mask is None and query.shape[-1] == value.shape[-1] <= FLASH_HEAD_DIM
        return query.dtype in HALF and fits and self.capability >= FLASH_SINCE

    def takes_efficient(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
        """`can_use_mem_efficient_attention` of sdp_utils.cpp, whose kernels read 16 bytes at a time."""
        tensor_cores = self.capability >= FLASH_SINCE or query.dtype == torch.float16
        alignment = 16 // query.dtype.itemsize if tensor_cores else 1
        aligned = query.shape[-1] == key.shape[-1] and not (query.shape[-1] % alignment or value.shape[-1] % alignment)
        return aligned and (query.dtype != torch.bfloat16 or self.capability >= BFLOAT16_SINCE)

    def _takes_cudnn(self, query: torch.Tensor, value: torch.Tensor) -> bool:
        """`can_use_cudnn_attention` of sdp_utils.cpp, whose newest limits are left to newer cards."""
        dims = (query.shape[-1], value.shape[-1])
        fits = all(dim <= CUDNN_HEAD_DIM and dim % CUDNN_MULTIPLE == 0 for dim in dims)
        return query.dtype in HALF and fits and self.capability >= FLASH_SINCE

    # -- what is said --------------------------------------------------------------------------------------------
    def _say_whole(self, query: torch.Tensor) -> None:
        """Says once of each component that its attention falls back to separate ops."""
        old = query.dtype == torch.bfloat16 and self.capability < BFLOAT16_SINCE
        cure = f"in bfloat16 before compute capability {_LEAST}: float16 has one" if old else "of heads of these sizes"
        part = self.ledger.place.partition(".")[0] or "the pipeline"
        self.ledger.assume(f"{part}: all scores of attention are held at once, as PyTorch has no kernel for it {cure}")

    def _none(self, query: torch.Tensor, value: torch.Tensor, mask: Mask) -> str:
        """The sentence for attention that none of the kernels takes which are allowed."""
        names = " and ".join(name for name, is_on in zip(_FUSED, _fused_allowed(), strict=True) if is_on)
        here = f" before compute capability {_LEAST}" if self.capability < FLASH_SINCE else ""
        masked = " and a mask" if mask is not None else ""
        dtype, width = dtype_of([query]), max(query.shape[-1], value.shape[-1])
        return f"PyTorch's {names or 'own'} kernel does not take {dtype} with heads of {width}{masked}{here}"


_LEAST = ".".join(map(str, FLASH_SINCE))
_FUSED = ("flash", "memory-efficient", "cuDNN")


def _fused_allowed() -> Iterator[bool]:
    """Which fused kernels may run, in the order of their names."""
    yield allowed.flash_sdp_enabled()
    yield allowed.mem_efficient_sdp_enabled()
    yield allowed.cudnn_sdp_enabled()


def _added(mask: Mask, dtype: torch.dtype) -> Mask:
    """A boolean mask as what is added to the scores."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), float("-inf"))


def _efficient_buffers(query: torch.Tensor, value: torch.Tensor, mask: Mask) -> list[torch.Tensor]:
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
