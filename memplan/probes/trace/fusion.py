"""Which ops a compiler does in one kernel, read off the graph of the ops that ran.

TorchInductor writes one kernel for ops that go element by element or row by row and feed each other; what only they
read is never written. Products, attention and convolutions stay kernels of libraries. Here ops are fused that are
joined directly and have the same rank: how many such library calls precede them at most. So nothing that is fused
waits for a call that waits for it. It is the rule of `Scheduler.fuse_nodes` of torch/_inductor/scheduler.py without its
exceptions: loads that are not worth fusing, and kernels that share no more than an input.

Regions are compiled each by itself, so that what crosses the border of one is written and read. Repeated blocks are
regions, and what is between two of them; compiled with its component, a block is priced with these borders too, which
counts a read of its input too many.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from memplan.facts import ELEMENTWISE, Ops
from memplan.probes.trace.loops import LONG_ROW, NORM, fusible, row
from memplan.probes.trace.operands import extent


@dataclass(slots=True)
class Value:
    """What op `node` wrote, or -1 for what came from outside, in bytes; `readers` are ops too, -1 those not fused."""

    rank: int
    node: int
    size: int
    readers: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Node:
    """One op that can be fused: where its group is, in which stretch it ran, what it read and what it wrote."""

    parent: int
    stretch: int
    dtype: str
    reads: list[tuple[Value, int, tuple[Any, ...]]]
    writes: Value | None


Operands = tuple[Any, Sequence[torch.Tensor], Sequence[torch.Tensor]]
"""An op, the tensors that it was given and those that it gave."""


class Graph:
    """The ops of one call as they run, joined to kernels. `regions` are the modules that are compiled alone."""

    def __init__(self, regions: frozenset[str] = frozenset()) -> None:
        """Nothing has run."""
        self._borders = regions
        self._region = 0
        self._floor = 0
        self._values: dict[int, Value] = {}
        self._nodes: list[Node] = []
        self._region_of: list[int] = []
        self._kept: dict[int, list[Ops]] = {}
        self._done: dict[int, tuple[Ops, ...]] | None = None

    def forget(self, storage: int) -> None:
        """A storage has died; what comes at its address is another."""
        self._values.pop(storage, None)

    def enter(self, module: str) -> None:
        """A module begins."""
        self._region += module in self._borders

    def leave(self, module: str) -> None:
        """A module returns."""
        self._region += module in self._borders

    def add(self, ops: Ops, at: int, operands: Operands | None = None) -> None:
        """So much was done in stretch `at`, by an op on `operands`; where they are not known nothing joins it."""
        self._done = None
        if operands is None:
            self._opaque(ops, at)
        else:
            self._op(ops, at, operands)

    def _opaque(self, ops: Ops, stretch: int) -> None:
        self._floor = 1 + max((v.rank for v in self._values.values()), default=self._floor)
        self._kept.setdefault(stretch, []).append(ops)

    def _op(self, ops: Ops, at: int, operands: Operands) -> None:
        func, inputs, outputs = operands
        name = func._overloadpacket.__name__
        read = [(self._value(t), extent(t), (t.storage_offset(), *t.shape)) for t in inputs]
        rank = max((value.rank for value, *_ in read), default=self._floor)
        if ops.family != ELEMENTWISE or not fusible(func, name):
            self._kept.setdefault(at, []).append(ops)
            for value, *_ in read:
                value.readers.add(-1)
            self._write(outputs, rank + 1, -1)
            return
        long = row(name, inputs, outputs) > LONG_ROW
        if long and name == NORM:  # the sums are a kernel, then the image is read once more
            self._join(read, None, ops.dtype, rank, at)
        node = self._join(read, outputs, ops.dtype, rank + (long and name == NORM), at)
        if long and name != NORM:
            self._write(outputs, rank + 1, node)

    def _join(self, read: Any, outputs: Sequence[torch.Tensor] | None, dtype: str, rank: int, at: int) -> int:
        number = len(self._nodes)
        self._nodes.append(Node(number, at, dtype, read, None))
        self._region_of.append(self._region)
        for value, *_ in read:
            if value.node >= 0 and value.rank == rank and self._region_of[value.node] == self._region:
                self._nodes[self._root(value.node)].parent = number
        for value, *_ in read:
            value.readers.add(number)
        if outputs is not None:
            self._nodes[number].writes = self._write(outputs, rank, number)
        return number

    def _write(self, outputs: Sequence[torch.Tensor], rank: int, node: int) -> Value | None:
        """Enter what was written; the first output stands for all of them, the others are its statistics."""
        made = [Value(rank, node, extent(t)) for t in outputs]
        for tensor, value in zip(outputs, made, strict=True):
            self._values[tensor.untyped_storage()._cdata] = value
        return made[0] if made else None

    def _value(self, tensor: torch.Tensor) -> Value:
        key = tensor.untyped_storage()._cdata
        if key not in self._values:
            self._values[key] = Value(self._floor, -1, int(tensor.untyped_storage().nbytes()))
        return self._values[key]

    def _root(self, number: int) -> int:
        nodes = self._nodes
        while nodes[number].parent != number:
            nodes[number].parent = nodes[nodes[number].parent].parent
            number = nodes[number].parent
        return number

    # -- the outcome ---------------------------------------------------------------------------------------------
    def work(self) -> dict[int, tuple[Ops, ...]]:
        """What is done in each stretch once compiled: each kernel where the last of its ops ran."""
        if self._done is None:
            self._done = self._work()
        return self._done

    def _work(self) -> dict[int, tuple[Ops, ...]]:
        alive = {id(value) for value in self._values.values()}
        done = {at: list(ops) for at, ops in self._kept.items()}
        for at, ops in self._kernels(alive):
            done.setdefault(at, []).append(ops)
        return {at: _summed(ops) for at, ops in done.items()}

    def _kernels(self, alive: set[int]) -> Iterator[tuple[int, Ops]]:
        roots = [self._root(number) for number in range(len(self._nodes))]
        groups: dict[int, list[Node]] = {}
        for node, root in zip(self._nodes, roots, strict=True):
            groups.setdefault(root, []).append(node)
        for root, nodes in groups.items():
            read: dict[int, tuple[Value, dict[tuple[Any, ...], int]]] = {}
            for value, size, place in (r for node in nodes for r in node.reads):
                if value.node < 0 or roots[value.node] != root:
                    read.setdefault(id(value), (value, {}))[1][place] = size
            traffic = sum(min(sum(places.values()), max(v.size, *places.values())) for v, places in read.values())
            for value in (node.writes for node in nodes if node.writes is not None):
                inside = all(reader >= 0 and roots[reader] == root for reader in value.readers)
                if not value.readers or not inside or id(value) in alive:
                    traffic += value.size
            largest = max(nodes, key=lambda n: n.writes.size if n.writes else 0)
            yield max(node.stretch for node in nodes), Ops(ELEMENTWISE, largest.dtype, 1, 0, traffic)


def _summed(every: Sequence[Ops]) -> tuple[Ops, ...]:
    found: dict[tuple[str, str], Ops] = {}
    for ops in every:
        key = ops.family, ops.dtype
        found[key] = found[key] + ops if key in found else ops
    return tuple(found.values())
