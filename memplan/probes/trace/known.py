"""Remembers what an op gives and costs, so that it runs once for tensors of the same layouts.

FakeTensorMode remembers too, but takes ten times as long to find it: the blocks of a transformer, the steps of a
scheduler and the tiles of a VAE run the same ops tens of thousands of times.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from memplan.facts import Ops
from memplan.probes.fakes.fake import CPU
from memplan.probes.trace.ledger import Ledger
from memplan.probes.trace.moulds import FakeMaker, Maker, Mould, ZerosMaker, begins, cast

_PLAIN = (int, bool, float, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
"""Types of arguments that are part of what makes two ops alike."""
LARGE = 2**15
"""Elements above which PyTorch's CPU kernels take several threads (`GRAIN_SIZE` of ATen/TensorIterator.h)."""
_BY_VALUE = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output, torch.Tag.inplace_view}
"""Tags of ops whose result is not decided by layouts, or that change the layout of what they are given."""


@dataclass(frozen=True)
class Cost:
    """What an op costs beside its results: bytes of workspace, and what it does; None for nothing."""

    workspace: int
    work: Ops | None


@dataclass(frozen=True)
class Known:
    """An op for tensors of some layouts. `results` are moulds, or numbers of inputs that it gives back.

    `kind` is the type in which several come.
    """

    kind: type | None
    results: tuple[Mould | int, ...]
    cost: Cost


class KnownOps:
    """The ops on fake tensors of `mode` that ran so far."""

    def __init__(self, mode: FakeTensorMode) -> None:
        """Nothing has run."""
        self._mode = mode
        self._maker: Maker = FakeMaker(mode)
        self._known: dict[Any, Known] = {}

    def key(self, func: Any, args: Any, kwargs: Any, inputs: list[torch.Tensor]) -> Any:
        """What makes two ops alike, or None for an op that is not remembered; `inputs` are the tensors given."""
        if not _is_decided_by_layouts(func) or not all(map(self._takes, inputs)):
            return None
        loose = torch.Tag.pointwise in func.tags  # no number decides its layout
        parts: list[Any] = [func, torch.get_default_dtype(), *kwargs]
        return tuple(parts) if _sign(args, parts, loose) and _sign(kwargs.values(), parts, loose) else None

    def get(self, key: Any) -> Known | None:
        """What is known of the op of this key."""
        return self._known.get(key)

    def again(self, known: Known, inputs: list[torch.Tensor]) -> Any:
        """What an op gives for `inputs`."""
        made: dict[int, torch.Tensor] = {}
        results = (inputs[r] if isinstance(r, int) else cast(r, self._maker, made, inputs) for r in known.results)
        return next(results) if known.kind is None else known.kind(results)

    def learn(self, key: Any, out: Any, inputs: list[torch.Tensor], cost: Cost) -> None:
        """Remember what the op of `key` gave for `inputs`, unless some of it cannot be made again."""
        several = isinstance(out, list | tuple)
        results = list(out) if several else [out]
        if all(isinstance(r, torch.Tensor) and self._gives(r) for r in results):
            storages = [t.untyped_storage()._cdata for t in inputs]
            moulds = (_result(r, inputs, storages) for r in results)
            self._known[key] = Known(type(out) if several else None, tuple(moulds), cost)

    def _takes(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` is one whose layout says all. FakeTensorMode computes with constants."""
        if not isinstance(tensor, FakeTensor) or tensor.fake_mode is not self._mode or tensor.constant is not None:
            return False
        return tensor.device == CPU and is_plain(tensor)

    def _gives(self, tensor: torch.Tensor) -> bool:
        return self._takes(tensor)


class KnownOwnOps(KnownOps):
    """The ops of the pipeline's own code on what components gave: large tensors, of whose values nothing is known.

    Their results are zeros that no one computes: a scheduler's steps are alike, and its latents can be large.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Nothing has run; `ledger` knows what nothing is known of."""
        self._ledger = ledger
        self._maker = ZerosMaker()
        self._known = {}

    def key(self, func: Any, args: Any, kwargs: Any, inputs: list[torch.Tensor]) -> Any:
        """What makes two ops alike, or None for an op that is not remembered."""
        unknown = any(t.numel() > LARGE and self._ledger.doubts(t) for t in inputs)
        return super().key(func, args, kwargs, inputs) if unknown and not func.is_view else None

    def _takes(self, tensor: torch.Tensor) -> bool:
        return type(tensor) is torch.Tensor and tensor.device == CPU and is_plain(tensor)

    def _gives(self, tensor: torch.Tensor) -> bool:
        return self._takes(tensor) and tensor.numel() > LARGE


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether `tensor` is what its strides say, and not its conjugate or negative until somebody asks."""
    return tensor.layout is torch.strided and not (tensor.is_conj() or tensor.is_neg())


def _sign(values: Iterable[Any], parts: list[Any], loose: bool) -> bool:
    """Add `values` to `parts`; False where one is not remembered. `loose` leaves out the value of floats."""
    for value in values:
        kind = type(value)
        if isinstance(value, torch.Tensor):
            parts += (value.shape, value.stride(), value.dtype)
        elif kind is list or kind is tuple:
            parts.append(len(value))
            if not _sign(value, parts, loose):
                return False
        elif kind not in _PLAIN:
            return False
        else:
            parts += (kind, None if loose and kind is float else value)
    return True


@cache
def _is_decided_by_layouts(func: Any) -> bool:
    """Whether what `func` gives, but for its values, follows from the layouts of what it is given.

    as_strided() also looks at where in its storage a tensor begins.
    """
    schema = getattr(func, "_schema", None)
    if schema is None or not _BY_VALUE.isdisjoint(func.tags) or func is torch.ops.aten.as_strided.default:
        return False
    return not schema.is_mutable or str(schema.name).endswith("_")  # in place; not one that writes to `out`


def _result(result: torch.Tensor, inputs: list[torch.Tensor], storages: list[int]) -> Mould | int:
    number = next((i for i, given in enumerate(inputs) if given is result), None)
    if number is not None:
        return number
    storage = result.untyped_storage()._cdata
    if storage not in storages:
        return Mould.of(result, None)
    source = storages.index(storage)
    return Mould.of(result, source, begins(inputs[source]))
