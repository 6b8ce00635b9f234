"""What weights hold: told from a few elements of each, or from all of them."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

SAMPLES = 64
"""Elements of each weight that are read for `sampled`."""
WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}
"""Integers by their bytes."""


def sampled(tensors: Iterable[torch.Tensor]) -> bytes:
    """A digest of up to `SAMPLES` elements of each tensor, evenly spread, wherever it is; one transfer per device.

    What is added to a whole weight changes it, such as a LoRA that is fused. What is written between the samples does
    not, and neither do weights without bytes, which accelerate keeps elsewhere.
    """
    found: dict[Any, list[torch.Tensor]] = {}
    for tensor in tensors:
        for part in _inside(tensor):
            if part.numel() and part.device.type != "meta":
                found.setdefault(part.device, []).append(_some(_flat(part)).view(torch.uint8))
    digest = hashlib.sha256()
    for parts in found.values():
        digest.update(torch.cat(parts).cpu().numpy().tobytes())
    return digest.digest()


def _some(flat: torch.Tensor) -> torch.Tensor:
    step = max(1, flat.numel() // SAMPLES)
    step -= step % 2 == 0  # odd: rows have even lengths, and the samples shall not be one column
    return flat[::step][:SAMPLES].contiguous()


def total(tensor: torch.Tensor, into: torch.Tensor) -> None:
    """Writes the sum of the bytes of `tensor`, read as the largest integers that fit, to the int64 scalar `into`.

    Modulo 2^64, so it does not depend on the order. It reads the tensor once, and allocates nothing of its size.
    """
    flat = _flat(tensor)
    if flat.numel():
        raw = flat.view(torch.uint8)
        size = next(size for size in WORDS if _fits(raw, size))
        torch.sum(raw.view(WORDS[size]), dim=0, dtype=torch.int64, out=into)
    else:
        into.zero_()


def _fits(raw: torch.Tensor, size: int) -> bool:
    return raw.numel() % size == 0 and raw.storage_offset() % size == 0


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The elements of a plain tensor in the order of its memory, where that has no gaps; a copy where it has."""
    plain = tensor.detach().as_subclass(torch.Tensor)
    if torch.ops.aten.is_non_overlapping_and_dense(plain):
        return plain.as_strided((plain.numel(),), (1,))
    return plain.reshape(-1)


def _inside(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors that hold what `tensor` holds: itself, or those inside one of a subclass such as torchao's."""
    if not is_traceable_wrapper_subclass(tensor):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _inside(getattr(tensor, name))
