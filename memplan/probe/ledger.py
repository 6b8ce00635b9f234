"""The account of a dry run: what is live now, the highest it was between two module boundaries, and in which op."""

import weakref
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from memplan.allocator import Block, Pool
from memplan.facts import Segment

ALLOCATION_UNIT = 512
"""Bytes to which PyTorch's CUDA allocator rounds each tensor (`kMinBlockSize` of c10's CUDACachingAllocator)."""


def rounded(nbytes: int, unit: int = ALLOCATION_UNIT) -> int:
    """`nbytes` rounded up to whole allocation units."""
    return -(-nbytes // unit) * unit


@dataclass
class Stretch:
    """A segment while it is being written."""

    enters: list[int]
    live: int
    peak: int
    leaves: list[int] = field(default_factory=list)
    op: int = 0
    flops: int = 0
    traffic: int = 0
    repeat: int = 1


@dataclass
class Recording:
    """One call while it is being traced. Sizes are relative to `base`, what was live when it began.

    `pool` is an allocator that starts empty with the call. `reserved` is what the pipeline's allocator, which never
    gives back, holds after it; `occupied` the most it had in use during the call.
    """

    base: int
    stretches: list[Stretch] = field(default_factory=list)
    modules: dict[str, int] = field(default_factory=dict)
    ops: dict[str, int] = field(default_factory=dict)
    pool: Pool = field(default_factory=Pool)
    reserved: int = 0
    occupied: int = 0

    def segments(self) -> tuple[Segment, ...]:
        """The finished segments."""
        return tuple(
            Segment(tuple(s.enters), tuple(s.leaves), s.live, s.peak, s.op, s.flops, s.traffic, s.repeat)
            for s in self.stretches
        )


class Ledger:
    """Follows storages from birth to death. It keeps no tensor alive and counts each storage once.

    `unit` is the allocation unit: 512 bytes on a CUDA device, 1 on the CPU.
    """

    def __init__(self, unit: int = ALLOCATION_UNIT) -> None:
        """An empty account."""
        self.unit = unit
        self.live = 0
        self.depth = 0
        self.recording = Recording(0, [Stretch([], 0, 0)])
        self.pool = Pool()
        self._known: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._blocks: dict[int, list[tuple[Pool, Block]]] = {}

    # -- storages ------------------------------------------------------------------------------------------------
    def knows(self, tensor: torch.Tensor) -> bool:
        """Whether the storage of `tensor` is in the account, counted or not."""
        return tensor.untyped_storage()._cdata in self._known

    def admit(self, tensor: torch.Tensor, *, counted: bool = True) -> None:
        """Enter the storage of `tensor`. One that is not `counted` stands for memory accounted elsewhere."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = rounded(int(storage.nbytes()), self.unit) if counted else 0
        self._known[key] = (weakref.ref(storage, lambda _: self._forget(key)), size)
        self.live += size
        if size:
            self._blocks[key] = [(pool, pool.take(size)) for pool in (self.pool, self.recording.pool)]

    def own(self, weight: torch.Tensor) -> None:
        """Enter a weight, which is priced elsewhere: only its death counts, when the pipeline casts a component."""
        storage = weight.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            reference = weakref.ref(storage, lambda _: self._forget(key))
            self._known[key] = (reference, rounded(int(storage.nbytes()), self.unit))

    def _forget(self, key: int) -> None:
        _, size = self._known.pop(key, (None, 0))
        self.live -= size
        for pool, block in self._blocks.pop(key, ()):
            pool.give(block)

    @contextmanager
    def aside(self) -> Generator[None]:
        """What happens inside leaves the pipeline's allocator as it was."""
        kept = self.pool, self._blocks
        self.pool, twins = self.pool.copy()
        self._blocks = {
            key: [(self.pool, twins[b]) if pool is kept[0] else (pool, b) for pool, b in blocks]
            for key, blocks in kept[1].items()
        }
        try:
            yield
        finally:
            self.pool, self._blocks = kept

    # -- peaks ---------------------------------------------------------------------------------------------------
    def note(self, op: str, workspace: int = 0, flops: int = 0, traffic: int = 0) -> None:
        """An op has run: its outputs are in `live`, `workspace` bytes lived beside them while it ran."""
        if workspace:
            for pool in (self.pool, self.recording.pool):
                pool.give(pool.take(workspace))
        stretch = self.recording.stretches[-1]
        stretch.flops += flops
        stretch.traffic += traffic
        height = self.live + workspace - self.recording.base
        if height > stretch.peak:
            stretch.peak = height
            stretch.op = self.recording.ops.setdefault(op, len(self.recording.ops))

    def enter(self, module: str) -> None:
        """A module begins: a new segment, unless nothing happened since the last boundary."""
        recording, index = self.recording, self._index(module)
        last = recording.stretches[-1] if recording.stretches else None
        height = self.live - recording.base
        if last is None or last.leaves or last.traffic or last.flops or last.peak > height:
            recording.stretches.append(Stretch([index], height, height, op=last.op if last else 0))
        else:
            last.enters.append(index)

    def leave(self, module: str) -> None:
        """A module returns: it closes the current segment."""
        self.recording.stretches[-1].leaves.append(self._index(module))

    def resume(self) -> None:
        """Open a new segment if the last one was closed by a returning module."""
        if self.recording.stretches[-1].leaves:
            self.cut()

    def cut(self) -> None:
        """Open a new segment here, within the same modules."""
        height = self.live - self.recording.base
        self.recording.stretches.append(Stretch([], height, height, op=self.recording.stretches[-1].op))

    def _index(self, module: str) -> int:
        return self.recording.modules.setdefault(module, len(self.recording.modules))

    # -- recordings ----------------------------------------------------------------------------------------------
    def begin(self) -> Recording:
        """Start a recording; returns the one it interrupts."""
        interrupted, self.recording = self.recording, Recording(self.live, [Stretch([], 0, 0)])
        self.pool.highest = self.pool.occupied
        return interrupted

    def end(self, resumed: Recording) -> Recording:
        """Finish the recording and go on with `resumed`; returns the finished one."""
        finished, self.recording = self.recording, resumed
        finished.reserved, finished.occupied = self.pool.reserved, self.pool.highest
        self.pool.highest = self.pool.occupied
        return finished


def tensors_in(values: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors among `values`."""
    return [v for v in values if isinstance(v, torch.Tensor)]
