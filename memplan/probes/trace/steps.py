"""One forward of a component and its backward, on fake weights and with fake gradients."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd.graph import _engine_run_backward
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

from memplan.errors import BadInput
from memplan.facts import Call
from memplan.facts.training import ACCUMULATE
from memplan.probes.fakes.twin import Twin
from memplan.probes.trace.autocast import autocasting, rules_of
from memplan.probes.trace.calling import Switches, called
from memplan.probes.trace.kernels import Kernels
from memplan.probes.trace.known import KnownOps
from memplan.probes.trace.ledger import ALLOCATION_UNIT, Ledger, Recording
from memplan.probes.trace.operands import tensors_in
from memplan.probes.trace.timeline import Entry
from memplan.probes.trace.tracker import Tracker
from memplan.probes.trace.unseen import unseen_fakes

FIRST, LATER = "forward and backward", "accumulating"
"""The phases: a forward and backward that finds no gradients, and one that adds to those that are there.

The calls of the two have methods of their own, so that each is told from the other in every way."""


@dataclass
class TrainingStep:
    """Forward and backward of `component`, done `twice` where gradients are added up; `inputs` are by name.

    The forward computes under autocast to the dtype that `autocast` names, "" for none.

    `failed` says which ways fail, and in which words.
    """

    component: str
    module: torch.nn.Module
    inputs: dict[str, Any]
    twin: Twin
    kind: tuple[str, tuple[int, int]]
    twice: bool = False
    autocast: str = ""
    failed: dict[str, str] = field(default_factory=dict)
    assumptions: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """No op has run."""
        self.known = KnownOps(self.twin.mode)

    def attempt(self, way: str, switches: Switches) -> tuple[Call, ...]:
        """The calls made in this way; none where that fails."""
        try:
            return self.follow((way,), switches)
        except Exception as error:
            self.failed[way] = str(error).partition("\n")[0] or type(error).__name__
            return ()

    def follow(self, ways: tuple[str, ...], switches: Switches) -> tuple[Call, ...]:
        """The calls made in these ways: one that finds no gradients, and where they add up one that finds them."""
        device, capability = self.kind
        ledger = Ledger(ALLOCATION_UNIT if device == "cuda" else 1)
        for weight in (*self.module.parameters(), *self.module.buffers()):
            ledger.own(weight)
        for tensor in tensors_in(tree_leaves(self.inputs)):
            ledger.admit(tensor)
        seen = called(self.module, ways, switches), torch.random.fork_rng(devices=[]), unseen_fakes()
        kernels = Kernels(ledger, device, capability, training=True)
        with self.in_mode(), seen[0], seen[1], seen[2], kernels, rules_of(device):
            recordings = [self._record(ledger) for _ in range(1 + self.twice)]
        self.assumptions |= ledger.assumptions
        entries = zip((("forward", FIRST), (ACCUMULATE, LATER)), recordings, strict=False)
        return tuple(Entry(self.component, *names, r, r.base, variant=ways).call() for names, r in entries)

    @contextmanager
    def in_mode(self) -> Generator[None]:
        """The module trains, and has no gradients after it."""
        modes = [(part, part.training) for part in self.module.modules()]
        self.module.train()
        try:
            yield
        finally:
            self.module.zero_grad(set_to_none=True)
            for part, mode in modes:
                part.training = mode

    def _record(self, ledger: Ledger) -> Recording:
        """One forward and backward."""
        interrupted = ledger.begin(self.component)
        ledger.recording.graph = None  # nothing of it is compiled
        try:
            device, _ = self.kind
            with torch.enable_grad(), self.twin.mode, Tracker(ledger, device, self.known):
                self.passes(ledger)
        finally:
            recording = ledger.end(interrupted)
        return recording

    def passes(self, ledger: Ledger) -> None:
        """A forward, its loss and its backward."""
        inputs = tree_map(detached, self.inputs)
        with autocasting(self.autocast):
            result = self.module(**inputs)
        losses = [_loss(tensor) for tensor in learned(result, self.component)]
        ledger.cut()
        ones = [torch.ones_like(loss) for loss, _ in losses]
        backward([loss for loss, _ in losses], ones)  # the result is there meanwhile, as in most loops
        del result, losses, inputs


def detached(value: Any) -> Any:
    """A tensor without its history; anything else as it is."""
    return value.detach() if isinstance(value, torch.Tensor) else value


def learned(result: Any, component: str) -> list[torch.Tensor]:
    """The tensors of a result that are learned from. Raises BadInput where there is none."""
    found = [tensor for tensor in tensors_in(tree_leaves(result)) if tensor.requires_grad]
    if not found:
        raise BadInput(f"{component} returns nothing that depends on what is trained")
    return found


def _loss(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean squared error of `tensor`, and what its storage is larger by: PyTorch shrinks that of all squares to it.

    Source: `mse_loss_out` of ATen/native/Loss.cpp, whose resized output keeps its storage; seen in the profiler.
    """
    learned, target = tensor.float(), torch.empty_like(tensor).detach().float()
    return F.mse_loss(learned, target), torch.empty_like(learned).detach()


def backward(results: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    """What torch.autograd.backward() does, but with function modes on: what is computed again there needs them too."""
    _engine_run_backward(
        tuple(results), tuple(gradients), False, False, (), allow_unreachable=True, accumulate_grad=True
    )
