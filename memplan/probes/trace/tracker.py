"""Watches every op of a dry run and enters its outputs, workspace, FLOPs and traffic into the ledger."""

from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type

from memplan.probes.fakes.values import follow
from memplan.probes.trace.dependent import Decisions, is_dependent, sentence
from memplan.probes.trace.known import Cost, KnownOps, KnownOwnOps
from memplan.probes.trace.ledger import Ledger
from memplan.probes.trace.operands import tensors_in
from memplan.probes.trace.strides import corrected
from memplan.probes.trace.work import work
from memplan.probes.trace.workspace import workspace
from memplan.probes.trace.workspace_of_backward import workspace_of_backward

_DEVICE = torch.ops.prim.device.default


class Tracker(TorchDispatchMode):
    """A dispatch mode over one ledger. `device` is the kind whose kernels are assumed: "cuda" or "cpu".

    Two may be open: one for the pipeline's own code and, above the fake mode, one inside a component; only the
    innermost counts. Ops that are `known` do not run again; by default those of the pipeline's own code.
    """

    def __init__(self, ledger: Ledger, device: str, known: KnownOps | None = None) -> None:
        """Watch for `ledger`."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger = ledger
        self.device = device
        self.known = known or KnownOwnOps(ledger)
        self._decisions = Decisions(ledger, lambda func, args: self.__torch_dispatch__(func, (), args))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch should keep its compiler out of each op, which costs time: nothing is compiled here."""
        return False

    def __enter__(self) -> "Tracker":
        """Begin to watch; an outer tracker rests meanwhile."""
        self.ledger.depth += 1
        self._level = self.ledger.depth
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        """Stop watching."""
        self.ledger.depth -= 1
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the op and account for it; one on quantized weights is left to them, and what they do is watched."""
        if func is _DEVICE and isinstance(args[0], FakeTensor):  # autograd asks it of each gradient, several times
            return args[0].fake_device
        if any(map(is_traceable_wrapper_subclass_type, types)):
            return NotImplemented
        kwargs = kwargs or {}
        if self._level != self.ledger.depth or func.namespace == "prim":  # a question about a tensor, and no op
            return func(*args, **kwargs)
        self.ledger.resume()
        inputs = tensors_in((*args, *kwargs.values()))
        key = self.known.key(func, args, kwargs, inputs)
        known = self.known.get(key)
        if known:
            out = self.known.again(known, inputs)
        else:
            out = corrected(func, args, kwargs, self._run(func, args, kwargs, inputs), inputs)
        if self.ledger.place:
            follow(func, args, kwargs, out, inputs)
        self._admit(func, out, inputs)
        cost = known.cost if known else self._cost(func, args, kwargs, out)
        if not func.is_view:
            self.ledger.note(str(func._overloadpacket), cost.work, cost.workspace, (func, inputs, tensors_in((out,))))
        if key and not known:
            self.known.learn(key, out, inputs, cost)
        return out

    def _run(self, func: Any, args: Any, kwargs: Any, inputs: list[torch.Tensor]) -> Any:
        if is_dependent(func, inputs):
            return self._decisions.decide(func, args, kwargs, inputs)
        if torch.Tag.data_dependent_output in func.tags and any(map(self.ledger.doubts, inputs)):
            words = sentence(str(func._overloadpacket.__name__), inputs[0], self.ledger)
            self.ledger.assume(f"{words} reads zeros that stand for what a component gives")
        return func(*args, **kwargs)

    def _admit(self, func: Any, out: Any, inputs: list[torch.Tensor]) -> None:
        """Enter what the op made, and whether its values are those of the real call."""
        ledger, outputs = self.ledger, tensors_in((out,))
        new = [t for t in outputs if not ledger.knows(t)]
        if new:
            given = {t.untyped_storage()._cdata for t in inputs}
            for t in new:
                constant = func.is_view and self.device == "cpu"  # on a GPU it would have been copied there
                ledger.admit(t, counted=t.untyped_storage()._cdata not in given and not constant)
        if torch.Tag.nondeterministic_seeded in func.tags or any(map(ledger.doubts, inputs)):
            for t in outputs:
                ledger.doubt(t)

    def _cost(self, func: Any, args: Any, kwargs: Any, out: Any) -> Cost:
        if func.is_view:
            return Cost(0, None)
        made = tensors_in((out,))
        held = workspace(func, args, made, self.device) or workspace_of_backward(func, args, self.device)
        return Cost(held, work(func, args, kwargs, out, held))
