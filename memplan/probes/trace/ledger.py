"""The account of a dry run: what is live now, the highest it was between two module boundaries, and in which op."""

import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from memplan.allocator import Block, Pool
from memplan.facts import Ops, Result, Segment
from memplan.probes.fakes.quantized import inner_tensors
from memplan.probes.trace.fusion import Graph, Operands

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
    work: dict[tuple[str, str], Ops] = field(default_factory=dict)
    repeat: int = 1

    def add(self, ops: Ops) -> None:
        """So much more is done."""
        key = ops.family, ops.dtype
        self.work[key] = self.work[key] + ops if key in self.work else ops


@dataclass
class Recording:
    """One call while it is being traced. Sizes are relative to `base`, what was live when it began.

    `open` names the component and the modules in it that are running, outermost first. `rows` are the most that a
    linear layer is given at once, by its path; `results` what modules returned last. `pool` is an allocator that
    starts empty with the call. `reserved` is what the pipeline's allocator, which never gives back, holds after it;
    `occupied` the most it had in use during the call. `host` is the most that it held in host memory.
    `recast` are the weights that had another dtype than usual, by name, each with that dtype. `graph` joins the ops to
    kernels; there is none for the pipeline's own code, which nobody compiles.
    """

    base: int
    stretches: list[Stretch] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    modules: dict[str, int] = field(default_factory=dict)
    ops: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    results: dict[str, tuple[Result, ...]] = field(default_factory=dict)
    pool: Pool = field(default_factory=Pool)
    reserved: int = 0
    occupied: int = 0
    host: int = 0
    recast: tuple[tuple[str, str], ...] = ()
    graph: Graph | None = None

    @property
    def peak_op(self) -> str:
        """The operation at its peak."""
        return [*self.ops, ""][max(self.stretches, key=lambda s: s.peak).op]

    def segments(self) -> tuple[Segment, ...]:
        """The finished segments."""
        fused = self.graph.work() if self.graph else None

        def segment(number: int, s: Stretch) -> Segment:
            work = tuple(s.work.values())
            compiled = work if fused is None else fused.get(number, ())
            differs = None if compiled == work else compiled
            return Segment(tuple(s.enters), tuple(s.leaves), s.live, s.peak, s.op, work, s.repeat, differs)

        return tuple(segment(number, stretch) for number, stretch in enumerate(self.stretches))


@dataclass(frozen=True)
class Pools:
    """The pipeline's allocator at one moment, and in which blocks of which pools each storage is."""

    pool: Pool
    blocks: dict[int, list[tuple[Pool, Block]]]


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
        self.assumptions: dict[str, None] = {}
        self._known: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._doubted: set[int] = set()
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
        for tensor in inner_tensors(weight):
            self._own(tensor.untyped_storage())

    def _own(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self._known:
            reference = weakref.ref(storage, lambda _: self._forget(key))
            self._known[key] = (reference, rounded(int(storage.nbytes()), self.unit))

    def _forget(self, key: int) -> None:
        self._doubted.discard(key)
        if self.recording.graph:
            self.recording.graph.forget(key)
        _, size = self._known.pop(key, (None, 0))
        self.live -= size
        for pool, block in self._blocks.pop(key, ()):
            pool.give(block)

    def doubt(self, tensor: torch.Tensor) -> None:
        """Note that what a tensor in the account holds is not what it would hold in the real call."""
        self._doubted.add(tensor.untyped_storage()._cdata)

    def doubts(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` holds other values than in the real call."""
        return tensor.untyped_storage()._cdata in self._doubted

    def pools(self) -> Pools:
        """A copy of the pipeline's allocator as it is now."""
        return self._copied(Pools(self.pool, self._blocks))

    def _copied(self, pools: Pools) -> Pools:
        """The same allocator once more; blocks of storages that have died since are left in use."""
        pool, twins = pools.pool.copy()
        blocks = {
            key: [(pool, twins[b]) if p is pools.pool else (p, b) for p, b in blocks]
            for key, blocks in pools.blocks.items()
            if key in self._known
        }
        return Pools(pool, blocks)

    @contextmanager
    def aside(self, before: Pools) -> Generator[None]:
        """What happens inside finds the pipeline's allocator as it was `before`.

        It leaves it as it is now, but for what dies meanwhile.
        """
        kept = self.pool, self._blocks
        then = self._copied(before)
        self.pool, self._blocks = then.pool, then.blocks
        try:
            yield
        finally:
            self.pool, self._blocks = kept
            for key in self._blocks.keys() - self._known:
                for pool, block in self._blocks.pop(key):
                    if pool is self.pool:  # the others' blocks were given when it died
                        pool.give(block)

    # -- peaks ---------------------------------------------------------------------------------------------------
    def note(self, op: str, work: Ops | None = None, workspace: int = 0, operands: Operands | None = None) -> None:
        """An op has run: its outputs are in `live`, `workspace` bytes lived beside them while it ran."""
        if workspace:
            for pool in (self.pool, self.recording.pool):
                pool.give(pool.take(workspace))
        stretch = self.recording.stretches[-1]
        if work is not None:
            stretch.add(work)
            if self.recording.graph:
                self.recording.graph.add(work, len(self.recording.stretches) - 1, operands)
        height = self.live + workspace - self.recording.base
        if height > stretch.peak:
            stretch.peak = height
            stretch.op = self.recording.ops.setdefault(op, len(self.recording.ops))

    def hold(self, nbytes: int) -> None:
        """So many bytes are held in host memory at once."""
        self.recording.host = max(self.recording.host, nbytes)

    def enter(self, module: str) -> None:
        """A module begins: a new segment, unless nothing happened since the last boundary."""
        recording, index = self.recording, self._index(module)
        recording.open.append(module)
        if recording.graph:
            recording.graph.enter(module)
        last = recording.stretches[-1] if recording.stretches else None
        height = self.live - recording.base
        if last is None or last.leaves or last.work or last.peak > height:
            recording.stretches.append(Stretch([index], height, height, op=last.op if last else 0))
        else:
            last.enters.append(index)

    def give(self, module: str, rows: int) -> None:
        """The linear layer `module` is given so many rows."""
        known = self.recording.rows
        known[module] = max(known.get(module, 0), rows)

    def returned(self, module: str, tensors: list[torch.Tensor]) -> None:
        """The module returns these; of several views of one storage the first counts."""
        seen: dict[int, None] = {}
        found = []
        for tensor in tensors:
            storage = tensor.untyped_storage()
            nbytes = 0 if storage._cdata in seen else int(storage.nbytes())
            seen[storage._cdata] = None
            found.append(Result(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), nbytes))
        self.recording.results[module] = tuple(found)

    def leave(self, module: str) -> None:
        """A module returns: it closes the current segment."""
        if self.recording.graph:
            self.recording.graph.leave(self.recording.open[-1])
        self.recording.open.pop()
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

    # -- assumptions ---------------------------------------------------------------------------------------------
    @property
    def place(self) -> str:
        """Path of the innermost module that is running, from its component's name on; "" in the pipeline's own code."""
        component, *modules = self.recording.open or [""]
        return ".".join(filter(None, (component, *modules[-1:])))

    def assume(self, sentence: str) -> None:
        """Keep a sentence about something that the dry run could not know."""
        self.assumptions[sentence] = None

    # -- recordings ----------------------------------------------------------------------------------------------
    def begin(self, component: str = "", regions: frozenset[str] = frozenset()) -> Recording:
        """Start a recording of a call of `component`; returns the one it interrupts. `regions` are compiled alone."""
        graph = Graph(regions) if component else None
        begun = Recording(self.live, [Stretch([], 0, 0)], [component], graph=graph)
        interrupted, self.recording = self.recording, begun
        self.pool.highest = self.pool.occupied
        return interrupted

    def end(self, resumed: Recording) -> Recording:
        """Finish the recording and go on with `resumed`; returns the finished one."""
        finished, self.recording = self.recording, resumed
        finished.reserved, finished.occupied = self.pool.reserved, self.pool.highest
        self.pool.highest = self.pool.occupied
        return finished
