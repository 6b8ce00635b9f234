"""Replays a submodule that is called again with the same shapes: a tiled decode is thousands of equal tiles and frames.

A repetition allocates what the first call left behind, counts its segments once more, and raises them where more is
live than before.
"""

import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from memplan.probe.ledger import Ledger, Stretch, tensors_in

REPEATED = ("encoder", "decoder")
"""Submodules of a VAE that it calls once per tile and per group of frames."""


@dataclass(frozen=True)
class Mould:
    """A tensor that a call left behind: its view of a storage. `source` is the input that owns it, or None."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    storage: int
    elements: int
    source: int | None


@dataclass
class Repeatable:
    """One traced call of a submodule. `height` is the most that was live when it began, above the recording's base."""

    stretches: list[Stretch]
    height: int
    result: Any
    lists: list[list[Any]]
    owners: list[weakref.ref[Any]]


@contextmanager
def replaying(root: nn.Module, ledger: Ledger) -> Generator[None]:
    """Replay the repeated submodules of `root` for the length of the context."""
    found = [getattr(root, name) for name in REPEATED if isinstance(getattr(root, name, None), nn.Module)]
    undo = [_guard(module, ledger) for module in found]
    try:
        yield
    finally:
        for step in undo:
            step()


def _guard(module: nn.Module, ledger: Ledger) -> Callable[[], None]:
    seen: dict[Any, Repeatable] = {}
    had, original = module.__dict__.get("forward"), module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        key = _signature((args, kwargs))
        if key in seen:
            return _again(seen[key], ledger, args, kwargs)
        seen[key] = known = _first(ledger, original, args, kwargs)
        result, known.result = known.result, _moulds(known.result, known.owners)
        return result

    def restore() -> None:
        module.__dict__.pop("forward", None)
        if had is not None:
            module.__dict__["forward"] = had

    module.__dict__["forward"] = forward
    return restore


def _first(ledger: Ledger, original: Callable[..., Any], args: Any, kwargs: Any) -> Repeatable:
    """Run the call and keep what it did; the lists among its arguments may be changed by it."""
    lists, owners = _lists(args, kwargs), _storages(args, kwargs)
    before = [[_reference(entry) for entry in values] for values in lists]
    ledger.cut()
    recording, start = ledger.recording, len(ledger.recording.stretches) - 1
    height = ledger.live - recording.base
    result = original(*args, **kwargs)
    stretches = recording.stretches[start:]
    ledger.cut()
    changed = [
        [KEPT if new is old() else _moulds(new, owners) for new, old in zip(after, values, strict=True)]
        for after, values in zip(lists, before, strict=True)
    ]
    return Repeatable(stretches, height, result, changed, owners)


def _again(known: Repeatable, ledger: Ledger, args: Any, kwargs: Any) -> Any:
    """What the first call did, once more."""
    rise = max(ledger.live - ledger.recording.base - known.height, 0)
    known.height += rise
    for stretch in known.stretches:
        stretch.live += rise
        stretch.peak += rise
        stretch.repeat += 1
    owners = tensors_in(tree_leaves((args, kwargs)))
    made: dict[int, torch.Tensor] = {}
    for values, changes in zip(_lists(args, kwargs), known.lists, strict=True):
        for index, change in enumerate(changes):
            if change is not KEPT:
                values[index] = _cast(change, made, owners)
    return _cast(known.result, made, owners)


def _reference(entry: Any) -> Callable[[], Any]:
    """A way to know `entry` again that does not keep a tensor alive."""
    return weakref.ref(entry) if isinstance(entry, torch.Tensor) else lambda: entry


KEPT = object()
"""Stands for an entry of a list that the call did not change."""


def _lists(args: Any, kwargs: Any) -> list[list[Any]]:
    return [value for value in (*args, *kwargs.values()) if isinstance(value, list)]


def _signature(inputs: Any) -> Any:
    leaves, tree = tree_flatten(inputs)
    shapes = tuple((tuple(v.shape), v.stride(), v.dtype) if isinstance(v, torch.Tensor) else repr(v) for v in leaves)
    return str(tree), shapes


def _storages(args: Any, kwargs: Any) -> list[weakref.ref[Any]]:
    """The storages of the tensors given, in order, without keeping them alive."""
    return [weakref.ref(tensor.untyped_storage()) for tensor in tensors_in(tree_leaves((args, kwargs)))]


def _moulds(value: Any, owners: list[weakref.ref[Any]]) -> Any:
    def mould(tensor: Any) -> Any:
        if not isinstance(tensor, torch.Tensor):
            return tensor
        storage = tensor.untyped_storage()
        source = next((i for i, owner in enumerate(owners) if owner() is storage), None)
        elements = int(storage.nbytes()) // tensor.element_size()
        view = (tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()), tensor.dtype)
        return Mould(*view, storage._cdata, elements, source)

    return tree_map(mould, value)


def _cast(value: Any, made: dict[int, torch.Tensor], owners: list[torch.Tensor]) -> Any:
    def cast(mould: Any) -> Any:
        if not isinstance(mould, Mould):
            return mould
        if mould.source is None and mould.storage not in made:
            made[mould.storage] = torch.empty(mould.elements, dtype=mould.dtype)
        base = made[mould.storage] if mould.source is None else owners[mould.source]
        return base.as_strided(mould.size, mould.stride, mould.offset)

    return tree_map(cast, value)
