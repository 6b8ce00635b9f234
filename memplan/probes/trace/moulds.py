"""What is kept of a tensor so that one like it can be made at once, without the op that made it."""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from memplan.probes.fakes.fake import Layout, fake_tensor


@dataclass(frozen=True)
class Mould:
    """A tensor: its view of a storage. `source` is the number of the input that owns it, or None.

    `offset` is where it begins: bytes from the beginning of its storage, or of that input, which may lie elsewhere in
    another call. `storage` is the same number for the views of one storage, within one result; it has `nbytes`.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    storage: int = field(compare=False)
    nbytes: int
    source: int | None

    @classmethod
    def of(cls, tensor: torch.Tensor, source: int | None, beginning: int = 0) -> "Mould":
        """The mould of `tensor`; `beginning` is that of its source, in bytes."""
        storage = tensor.untyped_storage()
        view = (tuple(tensor.shape), tensor.stride(), begins(tensor) - beginning, tensor.dtype)
        return cls(*view, storage._cdata, int(storage.nbytes()), source)

    @property
    def layout(self) -> Layout:
        """Its layout."""
        return self.size, self.stride, self.dtype

    @property
    def whole(self) -> bool:
        """Whether the view shows all of its storage."""
        return self.offset == 0 and prod(self.size) * self.dtype.itemsize == self.nbytes


def begins(tensor: torch.Tensor) -> int:
    """Where a tensor begins in its storage, in bytes."""
    return int(tensor.storage_offset()) * tensor.element_size()


class Maker(Protocol):
    """Makes tensors."""

    def new(self, layout: Layout) -> torch.Tensor:
        """A tensor with a storage of its own."""
        ...

    def view(self, base: torch.Tensor, layout: Layout, offset: int) -> torch.Tensor:
        """A view of the storage of `base`; `offset` in elements."""
        ...


@dataclass(frozen=True)
class FakeMaker:
    """Makes fake tensors of `mode`."""

    mode: FakeTensorMode

    def new(self, layout: Layout) -> torch.Tensor:
        """A tensor with a storage of its own."""
        return fake_tensor(self.mode, layout)

    def view(self, base: torch.Tensor, layout: Layout, offset: int) -> torch.Tensor:
        """A view of the storage of `base`."""
        return fake_tensor(self.mode, layout, base, offset)


class ZerosMaker:
    """Makes real tensors of zeros, in memory that nobody has written to."""

    def new(self, layout: Layout) -> torch.Tensor:
        """A tensor with a storage of its own."""
        size, stride, dtype = layout
        with _disable_current_modes():
            return untouched(prod(size) * dtype.itemsize).view(dtype).as_strided(size, stride)

    def view(self, base: torch.Tensor, layout: Layout, offset: int) -> torch.Tensor:
        """A view of the storage of `base`."""
        size, stride, dtype = layout
        with _disable_current_modes():
            return torch.empty(0, dtype=dtype).set_(base.untyped_storage(), offset, size, stride)


def untouched(nbytes: int) -> torch.Tensor:
    """Bytes of zero that take no memory until they are written to.

    The allocator of the C library would clear memory that it has used before.
    """
    if nbytes < mmap.PAGESIZE:
        return torch.zeros(nbytes, dtype=torch.uint8)
    return torch.frombuffer(mmap.mmap(-1, nbytes), dtype=torch.uint8)


def cast(mould: Mould, maker: Maker, made: dict[int, torch.Tensor], owners: Sequence[torch.Tensor]) -> torch.Tensor:
    """A tensor for `mould`: a new one, or a view of one of `made`, by the number of its storage, or of `owners`."""
    if mould.source is not None:
        base = owners[mould.source]
        return maker.view(base, mould.layout, (begins(base) + mould.offset) // mould.dtype.itemsize)
    if mould.storage not in made:
        made[mould.storage] = maker.new(mould.layout if mould.whole else ((mould.nbytes,), (1,), torch.uint8))
        if mould.whole:
            return made[mould.storage]
    return maker.view(made[mould.storage], mould.layout, mould.offset // mould.dtype.itemsize)
