"""Attention kernels of other packages, by which diffusers' dispatcher may compute: what they hold on a CUDA device.

None of them is run or needed: fake tensors go to a stand-in with the kernel's allocations. Read from the sources of
flash-attention 2.8 and 3.0, SageAttention 2.2 and xformers 0.0.31, not measured.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.nn import functional as F

from memplan.facts import ELEMENTWISE, Ops
from memplan.probes.trace.attention import FLASH_HEAD_DIM, FLASH_SINCE, HALF, Attention, Mask
from memplan.probes.trace.ledger import Ledger
from memplan.probes.trace.operands import extent
from memplan.probes.trace.work import dtype_of

FLASH_MULTIPLE = 8
"""Of what flash-attention pads head dimensions to a multiple."""
SAGE_WIDTHS = (64, 128)
"""The head dimensions of SageAttention's kernels; smaller ones are padded."""
SAGE_BLOCK = 128
"""Positions of which SageAttention pads the values to a multiple, on compute capability 9.0."""
Heads = torch.Tensor
"""(B, S, H, D): the layout of diffusers' dispatcher."""


@contextmanager
def backends(ledger: Ledger, device: str, capability: tuple[int, int] = FLASH_SINCE) -> Generator[None]:
    """What diffusers' dispatcher calls takes fake tensors: on "cuda" all of it, elsewhere what is PyTorch's own."""
    found = [(owner, name, there) for owner, name, there in _found(ledger, device, capability) if hasattr(owner, name)]
    originals = [getattr(owner, name) for owner, name, _ in found]
    try:
        for owner, name, there in found:
            setattr(owner, name, there)
        yield
    finally:
        for (owner, name, _), original in zip(found, originals, strict=True):
            setattr(owner, name, original)


def _found(ledger: Ledger, device: str, capability: tuple[int, int]) -> Iterator[tuple[Any, str, Any]]:
    """Where the dispatcher of diffusers 0.42 looks for a kernel, under which name, and what stands in for it."""
    from diffusers.models import attention_dispatch as dispatch
    from torch.nn.attention import flex_attention

    yield _instead(flex_attention, "flex_attention", _flex)
    if device != "cuda":
        return
    packages = _Packages(ledger, Attention(ledger, capability))
    yield _instead(dispatch, "flash_attn_func", packages.flash)
    yield _instead(dispatch, "_wrapped_flash_attn_3", lambda *args, **kwargs: (packages.flash(*args, **kwargs), None))
    yield _instead(dispatch, "sageattn", packages.sage)
    downloaded = {"flash_hub": packages.flash, "_flash_3_hub": packages.flash, "sage_hub": packages.sage}
    for backend, kernel in getattr(dispatch, "_HUB_KERNELS_REGISTRY", {}).items():
        if backend.value in downloaded:
            yield _instead(kernel, "kernel_fn", downloaded[backend.value])
    there = getattr(dispatch, "xops", None)
    library = SimpleNamespace(**{"memory_efficient_attention": None, **(vars(there) if there else {})})
    setattr(*_instead(library, "memory_efficient_attention", packages.xformers))
    yield dispatch, "xops", library


def _instead(owner: Any, name: str, there: Callable[..., Any]) -> tuple[Any, str, Callable[..., Any]]:
    return owner, name, partial(_called, there, getattr(owner, name, None))


def _called(there: Callable[..., Any], here: Any, *args: Any, **kwargs: Any) -> Any:
    first = next(iter((*args, *kwargs.values())))
    return (there if isinstance(first, FakeTensor) else here)(*args, **kwargs)


@dataclass(frozen=True)
class _Packages:
    """The kernels of one device."""

    ledger: Ledger
    native: Attention

    def flash(self, q: Heads, k: Heads, v: Heads, *_: Any, **__: Any) -> Heads:
        """flash-attention 2 and 3: the result in the layout of the query, and a float32 log-sum-exp of each row.

        No positions are split among several blocks, as for few heads of a short query. Source: `mha_fwd` of
        csrc/flash_attn/flash_api.cpp, and hopper/flash_api.cpp.
        """
        width = q.shape[-1]
        if q.dtype not in HALF or width > FLASH_HEAD_DIM:
            raise RuntimeError(f"flash-attention takes no {dtype_of([q])} with heads of {width}")
        query, key, value = (_padded(x, -width % FLASH_MULTIPLE) for x in (q, k, v))
        out = self.native.flash(*(x.transpose(1, 2) for x in (query, key, value))).transpose(1, 2)
        return out[..., :width]

    def sage(self, q: Heads, k: Heads, v: Heads, *_: Any, **__: Any) -> Heads:
        """SageAttention: queries and keys once more in int8, values in float8, with float32 scales.

        Cards differ: this is what 9.0 holds, and the most. Others keep the values in float16, or do not pad them. Its
        seconds are those of products in the dtype of the query. Source: `sageattn_qk_int8_pv_fp8_cuda_sm90` of
        sageattention/core.py, and quant.py and triton/quant_per_thread.py there.
        """
        width = next((wide for wide in SAGE_WIDTHS if q.shape[-1] <= wide), None)
        if width is None or q.dtype not in HALF:
            raise RuntimeError(f"SageAttention takes no {dtype_of([q])} with heads of {q.shape[-1]}")
        query, key, value = (_padded(x, width - x.shape[-1]) for x in (q, k, v))
        integers = self._rounded(query), self._rounded(key - key.mean(dim=1, keepdim=True))
        out = query.new_empty(query.shape)
        missing = -value.shape[1] % SAGE_BLOCK
        if missing:
            value = torch.cat([value, value.new_zeros((value.shape[0], missing, *value.shape[2:]))], dim=1)
        turned = value.permute(0, 3, 2, 1).contiguous()
        floats = self._rounded(turned, torch.float8_e4m3fn)
        del turned
        self.native.note(*(x.transpose(1, 2) for x in (query, key, value, out)))
        del integers, floats
        return out[..., : q.shape[-1]]

    def _rounded(self, heads: torch.Tensor, dtype: torch.dtype = torch.int8) -> torch.Tensor:
        rounded = heads.new_empty(heads.shape, dtype=dtype)
        self.ledger.note("quantize", Ops(ELEMENTWISE, dtype_of([heads]), 1, 0, extent(heads) + extent(rounded)))
        return rounded

    def xformers(self, query: Heads, key: Heads, value: Heads, mask: Mask = None, *_: Any, **__: Any) -> Heads:
        """xformers: the flash kernel where it runs and there is no mask, else one like PyTorch's memory-efficient.

        Source: `_dispatch_fw` of xformers/ops/fmha/dispatch.py, and cutlass.py there.
        """
        if query.dim() != len("BSHD"):
            raise RuntimeError("grouped heads of xformers are not followed")
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        if self.native.takes_flash(q, v, mask):
            return self.native.flash(q, k, v).transpose(1, 2)
        if not self.native.takes_efficient(q, k, v):
            raise RuntimeError(f"xformers takes no {dtype_of([query])} with heads of {query.shape[-1]} on this card")
        return self.native.efficient(q, k, v, mask).transpose(1, 2)


def _flex(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: Any = None,
    block_mask: Any = None,
    **settings: Any,
) -> torch.Tensor:
    """PyTorch's flex attention where nobody compiles it: op by op, with all scores in float32."""
    from torch._higher_order_ops.flex_attention import sdpa_dense
    from torch.nn.attention.flex_attention import _create_empty_block_mask, _identity

    if score_mod is not None or block_mask is not None:
        raise RuntimeError("masks of flex attention are not followed")
    blocks, scale = _create_empty_block_mask(query, key).as_tuple(), settings.get("scale") or query.shape[-1] ** -0.5
    result: torch.Tensor = sdpa_dense(query, key, value, _identity, blocks, scale, {})[0]
    return result


def _padded(heads: Heads, missing: int) -> Heads:
    """`heads` with `missing` more elements in each; kernels want those of a head side by side."""
    if missing:
        return F.pad(heads, (0, missing))
    return heads if heads.stride(-1) == 1 else heads.contiguous()
