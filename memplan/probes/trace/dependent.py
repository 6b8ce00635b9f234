"""Ops whose result, or its shape, depends on the values of their arguments.

Where the values are known the op gives what it gives in the real call. Where they are not, it gives a number of zero or
the largest result that it can have, and the ledger keeps a sentence about it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from memplan.errors import Unsupported
from memplan.probes.fakes.values import compute, keep, read
from memplan.probes.trace.ledger import Ledger
from memplan.probes.trace.operands import tensors_in

aten = torch.ops.aten
MASKS = (torch.bool, torch.uint8)
"""Dtypes by which an index means the positions of its true elements."""
UNKNOWN = "since it is not known before the run: the figures hold for that branch"
"""Why a value is assumed, and what follows."""
_DEPENDENT = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
_NAMES = {"_local_scalar_dense": "item", "_unique2": "unique"}


def is_dependent(func: Any, inputs: list[torch.Tensor]) -> bool:
    """Whether what op `func` gives for `inputs`, fake ones among them, can depend on their values."""
    return not _DEPENDENT.isdisjoint(func.tags) and any(isinstance(t, FakeTensor) for t in inputs)


def sentence(op: str, tensor: torch.Tensor, ledger: Ledger) -> str:
    """The beginning of a sentence about an op that wants the values of `tensor`."""
    place = f"{ledger.place or 'the pipeline'}: "
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{place}{_NAMES.get(op, op)}() of a {tuple(tensor.shape)} {dtype} tensor"


class Decisions:
    """Decides dependent ops for one ledger. `run` runs, and accounts for, the ops that they consist of."""

    def __init__(self, ledger: Ledger, run: Callable[[Any, tuple[Any, ...]], Any]) -> None:
        """Nothing is decided yet."""
        self.ledger = ledger
        self.run = run

    def decide(self, func: Any, args: Any, kwargs: Any, inputs: list[torch.Tensor]) -> Any:
        """The result of `func`; `inputs` are the tensors among its arguments.

        Raises Unsupported, with the module and the op, where values are needed, not known, and give no bound.
        """
        if func is aten.index.Tensor:
            return func(args[0], list(self._positions(args[1])))
        if func is aten.masked_select.default:
            shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
            tensor, mask = (self.run(aten.expand.default, (given, shape)) for given in args)
            return self.run(aten.index.Tensor, (tensor, [mask]))
        if None not in [read(tensor) for tensor in inputs]:
            return _faked(compute(func, args, kwargs), inputs)
        return self._bounded(func, args[0])

    def _positions(self, indices: Any) -> Iterator[Any]:
        """`indices` with each mask replaced by the positions of its true elements, as PyTorch does it."""
        for index in indices:
            if isinstance(index, torch.Tensor) and index.dtype in MASKS:
                yield from self.run(aten.unbind.int, (self.run(aten.nonzero.default, (index,)), 1))
            else:
                yield index

    def _bounded(self, func: Any, tensor: torch.Tensor) -> Any:
        words = sentence(str(func._overloadpacket.__name__), tensor, self.ledger)
        if torch.Tag.data_dependent_output in func.tags:
            self.ledger.assume(f"{words} is taken as zero, {UNKNOWN}")
            with _disable_current_modes():
                return torch.zeros((), dtype=tensor.dtype).item() if func is aten._local_scalar_dense.default else False
        if func is aten.nonzero.default:
            self.ledger.assume(f"{words} is taken to find every element, the most that there can be")
            return tensor.new_empty((tensor.numel(), tensor.dim()), dtype=torch.int64)
        raise Unsupported(
            f"{words} gives a result whose size is not known before the run, so that this call cannot be planned."
        )


def _faked(result: Any, inputs: list[torch.Tensor]) -> Any:
    """A real result as fake tensors that keep their values; a number as it is."""
    mode = next(t.fake_mode for t in inputs if isinstance(t, FakeTensor))

    def fake(real: torch.Tensor) -> torch.Tensor:
        with mode:
            twin = torch.empty_strided(real.shape, real.stride(), dtype=real.dtype)
        keep(twin, real)
        return twin

    if isinstance(result, torch.Tensor):
        return fake(result)
    return tuple(map(fake, tensors_in(result))) if isinstance(result, tuple) else result
