"""Stands at the doors of the components: real inputs go in as fake tensors, zeros of the right shape come out.

A call that was made before with the same shapes is replayed from memory.
"""

import copy
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

from memplan.probe.ledger import Ledger, Recording
from memplan.probe.replay import replaying
from memplan.probe.tiling import METHODS as METHODS_IN_TILES
from memplan.probe.tiling import tiling
from memplan.probe.tracker import Tracker

METHODS = ("forward", "encode", "decode")
"""Methods of a component through which pipelines reach it."""


@dataclass
class Visit:
    """One traced call of a component's method, what it returns, and what was live when it was last made."""

    component: str
    method: str
    recording: Recording
    result: Any
    base: int
    tiled: Recording | None = None


@dataclass(frozen=True, eq=False)
class Door:
    """A method of a component, and the original that stands behind it."""

    component: str
    module: nn.Module
    method: str
    original: Callable[..., Any]


@dataclass
class Doors:
    """All doors of one pipeline. `seen` are the visits made so far, by what makes two calls the same.

    `untileable` components fail in tiles, though not without: their tiles are smaller than what a layer takes.
    """

    ledger: Ledger
    mode: FakeTensorMode
    device: str
    on_arrival: Callable[[], None]
    on_visit: Callable[[Visit], None]
    seen: dict[Any, Visit] = field(default_factory=dict)
    untileable: set[str] = field(default_factory=set)
    inside: bool = False

    @contextmanager
    def open(self, components: dict[str, nn.Module]) -> Generator[None]:
        """Stand at the doors of `components` for the length of the context."""
        with ExitStack() as stack:
            for name, module in components.items():
                for method in METHODS:
                    if callable(getattr(type(module), method, None)):
                        stack.callback(self._guard(Door(name, module, method, getattr(module, method))))
            yield

    def _guard(self, door: Door) -> Callable[[], None]:
        attributes = vars(door.module)
        had = attributes.get(door.method)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            return door.original(*args, **kwargs) if self.inside else self.visit(door, args, kwargs)

        def restore() -> None:
            attributes.pop(door.method, None)
            if had is not None:
                attributes[door.method] = had

        attributes[door.method] = guarded
        return restore

    def visit(self, door: Door, args: Any, kwargs: Any) -> Any:
        """Trace or replay one call; returns real zeros shaped like its result."""
        self.on_arrival()
        key = (door.component, door.method, signature((args, kwargs)))
        visit = self.seen.get(key)
        if visit is None:
            tiled = self._trace_tiled(door, (args, kwargs))
            visit = self.seen[key] = self._trace(door, (args, kwargs))
            visit.tiled = tiled
        visit.base = self.ledger.live
        self.on_visit(visit)
        return self._zeros(visit.result)

    def _trace_tiled(self, door: Door, inputs: Any) -> Recording | None:
        """The same call in tiles, if the component has tiling and it is off."""
        if door.method not in METHODS_IN_TILES:
            return None
        try:
            with tiling(door.module) as on, self.ledger.aside():
                return self._trace(door, inputs).recording if on else None
        except (RuntimeError, ValueError):
            self.untileable.add(door.component)
            return None

    def _trace(self, door: Door, inputs: Any) -> Visit:
        """Run one call on fake tensors and record it."""
        ledger = self.ledger
        interrupted = ledger.begin()
        self.inside = True
        try:
            with boundaries(door.module, ledger), replaying(door.module, ledger), self.mode, self._tracker():
                args, kwargs = tree_map(self._fake, inputs)
                if door.method == "forward":
                    ledger.enter("")
                result = door.original(*args, **kwargs)
                if door.method == "forward":
                    ledger.leave("")
            shape = shapes(result)
            del result, args, kwargs
        finally:
            self.inside = False
            recording = ledger.end(interrupted)
        return Visit(door.component, door.method, recording, shape, recording.base)

    def _tracker(self) -> Tracker:
        return Tracker(self.ledger, self.device)

    def _fake(self, value: Any) -> Any:
        """The fake twin of a real tensor; its bytes are already in the account."""
        if not isinstance(value, torch.Tensor) or isinstance(value, FakeTensor):
            return value
        fake = self.mode.from_tensor(value)
        self.ledger.admit(fake, counted=False)
        return fake

    def _zeros(self, result: Any) -> Any:
        return fill(result, self.ledger.admit)


@dataclass(frozen=True)
class Shape:
    """What is kept of a tensor: shape, strides and dtype."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Shape":
        """The shape of `tensor`."""
        return cls(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)

    def zeros(self) -> torch.Tensor:
        """A contiguous tensor of zeros; its pages are not touched."""
        with _disable_current_modes():
            untouched = torch.from_numpy(np.zeros(prod(self.size) * self.dtype.itemsize, dtype=np.uint8))
            return untouched.view(self.dtype).view(self.size)


def signature(inputs: Any) -> Any:
    """What makes two calls the same: structure, tensor shapes and dtypes, and every value but floats."""
    leaves, tree = tree_flatten(inputs)
    return str(tree), tuple(_sign(v) for v in leaves)


def _sign(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype
    return value if isinstance(value, int | bool | str | None) else type(value).__name__


def shapes(result: Any) -> Any:
    """`result` with each tensor replaced by its shape, also inside objects that hold tensors as attributes."""
    return tree_map(_shape_leaf, result)


def _shape_leaf(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Shape.of(value)
    if any(isinstance(v, torch.Tensor) for v in getattr(value, "__dict__", {}).values()):
        twin = copy.copy(value)
        twin.__dict__.update({k: _shape_leaf(v) for k, v in vars(value).items()})
        return Holder(twin)
    return value


@dataclass(frozen=True)
class Holder:
    """An object whose attributes hold tensors, e.g. a latent distribution."""

    value: Any


def fill(result: Any, admit: Callable[[torch.Tensor], None]) -> Any:
    """`shapes` undone with zeros, each of them shown to `admit`."""

    def leaf(value: Any) -> Any:
        if isinstance(value, Shape):
            zeros = value.zeros()
            admit(zeros)
            return zeros
        if isinstance(value, Holder):
            twin = copy.copy(value.value)
            twin.__dict__.update({k: leaf(v) for k, v in vars(twin).items()})
            return twin
        return value

    return tree_map(leaf, result)


@contextmanager
def boundaries(root: nn.Module, ledger: Ledger) -> Generator[None]:
    """Tell the ledger when a submodule of `root` that holds weights begins and returns."""
    paths = {id(m): name for name, m in root.named_modules() if name and next(_weights(m), None) is not None}

    def enter(module: nn.Module, args: Any) -> None:
        if id(module) in paths:
            ledger.enter(paths[id(module)])

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        if id(module) in paths:
            ledger.leave(paths[id(module)])

    handles = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _weights(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()
