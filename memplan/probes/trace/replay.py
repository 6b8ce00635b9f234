"""Replays what is called again with the same shapes: a tiled decode is thousands of equal tiles, frames and seams.

A repetition allocates what the first call left behind, counts its segments once more, and raises them where more is
live than before.
"""

import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from memplan.probes.trace.ledger import Ledger, Stretch
from memplan.probes.trace.moulds import FakeMaker, Mould, begins, cast
from memplan.probes.trace.operands import tensors_in

REPEATED = ("encoder.forward", "decoder.forward", "blend_v", "blend_h", "blend_t")
"""What a VAE calls once per tile and per group of frames, or to blend two of them."""
ROWS = 2
"""Rows of a seam that are traced: each of the others allocates and frees what the second one does."""


Owner = tuple[weakref.ref[Any], int]


@dataclass
class Repeatable:
    """One traced call of a submodule. `height` is the most that was live when it began, above the recording's base.

    What was traced is done `times` times over.
    """

    stretches: list[Stretch]
    height: int
    times: int
    result: Any
    lists: list[list[Any]]
    owners: list[Owner]


@contextmanager
def replaying(root: nn.Module, ledger: Ledger, mode: FakeTensorMode) -> Generator[None]:
    """Replay what `root` repeats for the length of the context, with fake tensors of `mode`."""
    caster = Caster(ledger, FakeMaker(mode))
    undo = [_guard(owner, method, caster) for owner, method in _repeated(root)]
    try:
        yield
    finally:
        for step in undo:
            step()


def _repeated(root: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for path in REPEATED:
        part, _, method = path.rpartition(".")
        owner = getattr(root, part, None) if part else root
        if isinstance(owner, nn.Module) and callable(getattr(owner, method, None)):
            yield owner, method


def _guard(owner: nn.Module, method: str, caster: "Caster") -> Callable[[], None]:
    seen: dict[Any, Repeatable] = {}
    had, original = owner.__dict__.get(method), getattr(owner, method)
    blends = method.startswith("blend")
    called = _few_rows(original) if blends else original

    def guarded(*args: Any, **kwargs: Any) -> Any:
        key = _signature((args, kwargs))
        if key in seen:
            return _again(seen[key], caster, args, kwargs)
        times = _extent(*args, **kwargs) // ROWS if blends else 1
        seen[key] = known = _first(caster.ledger, called, args, kwargs, max(times, 1))
        result, known.result = known.result, _moulds(known.result, known.owners)
        return result

    def restore() -> None:
        owner.__dict__.pop(method, None)
        if had is not None:
            owner.__dict__[method] = had

    owner.__dict__[method] = guarded
    return restore


def _few_rows(blend: Callable[..., Any]) -> Callable[..., Any]:
    """`blend(a, b, blend_extent)` of a shorter seam: it goes row by row, hundreds of times for a large tile."""

    def blended(a: torch.Tensor, b: torch.Tensor, blend_extent: int) -> Any:
        return blend(a, b, min(blend_extent, ROWS))

    return blended


def _extent(a: torch.Tensor, b: torch.Tensor, blend_extent: int) -> int:
    """Rows of a seam."""
    return blend_extent


def _first(ledger: Ledger, original: Callable[..., Any], args: Any, kwargs: Any, times: int) -> Repeatable:
    """Run the call and keep what it did; the lists among its arguments may be changed by it."""
    lists, owners = _lists(args, kwargs), _owners(args, kwargs)
    before = [[_reference(entry) for entry in values] for values in lists]
    ledger.cut()
    recording, start = ledger.recording, len(ledger.recording.stretches) - 1
    height = ledger.live - recording.base
    result = original(*args, **kwargs)
    stretches = recording.stretches[start:]
    for stretch in stretches:
        stretch.repeat *= times
    ledger.cut()
    changed = [
        [KEPT if new is old() else _moulds(new, owners) for new, old in zip(after, values, strict=True)]
        for after, values in zip(lists, before, strict=True)
    ]
    return Repeatable(stretches, height, times, result, changed, owners)


def _again(known: Repeatable, caster: "Caster", args: Any, kwargs: Any) -> Any:
    """What the first call did, once more."""
    ledger = caster.ledger
    rise = max(ledger.live - ledger.recording.base - known.height, 0)
    known.height += rise
    for stretch in known.stretches:
        stretch.live += rise
        stretch.peak += rise
        stretch.repeat += known.times
    owners = tensors_in(tree_leaves((args, kwargs)))
    made: dict[int, torch.Tensor] = {}
    for values, changes in zip(_lists(args, kwargs), known.lists, strict=True):
        for index, change in enumerate(changes):
            if change is not KEPT:
                values[index] = caster.cast(change, made, owners)
    return caster.cast(known.result, made, owners)


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


def _owners(args: Any, kwargs: Any) -> list[Owner]:
    """The storages of the tensors given, in order, without keeping them alive, and where in them the tensors begin."""
    given = tensors_in(tree_leaves((args, kwargs)))
    return [(weakref.ref(tensor.untyped_storage()), begins(tensor)) for tensor in given]


def _moulds(value: Any, owners: list[Owner]) -> Any:
    def mould(tensor: Any) -> Any:
        if not isinstance(tensor, torch.Tensor):
            return tensor
        storage = tensor.untyped_storage()
        source = next((i for i, (owner, _) in enumerate(owners) if owner() is storage), None)
        return Mould.of(tensor, source, 0 if source is None else owners[source][1])

    return tree_map(mould, value)


@dataclass(frozen=True)
class Caster:
    """Makes tensors from moulds and enters them into the ledger."""

    ledger: Ledger
    maker: FakeMaker

    def cast(self, value: Any, made: dict[int, torch.Tensor], owners: list[torch.Tensor]) -> Any:
        """`value` with a tensor for each mould: a new one, or a view of one of `made` or `owners`."""

        if not isinstance(value, Mould):
            return tree_map(lambda leaf: self.cast(leaf, made, owners) if isinstance(leaf, Mould) else leaf, value)
        tensor = cast(value, self.maker, made, owners)
        self.ledger.admit(tensor)
        return tensor
