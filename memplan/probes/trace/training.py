"""The dry run of a training step: forward and backward of one component, on fake weights and with fake gradients.

The pipeline's own call is followed up to that component, to learn what it is given. Losses are alike in what they hold:
here it is the mean squared error of what the component returns, in float32, as in diffusers' training scripts.
"""

import inspect
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.autograd.graph import _engine_run_backward
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

from memplan.errors import BadInput
from memplan.facts import LORA, Call, Step, Trace, Trained, Training
from memplan.names import SHARED
from memplan.probes.fakes.lora import add_lora
from memplan.probes.fakes.twin import Twin
from memplan.probes.fakes.values import keep, value_of
from memplan.probes.trace import Progress, dry_run, phase, show
from memplan.probes.trace.attention import FLASH_SINCE
from memplan.probes.trace.calling import NO_SWITCHES, Switches, called
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
BEFOREHAND = "what {} is given is made beforehand: of the pipeline it alone is on the device"
AS_LOADED = "{} computes in the dtypes in which it is loaded: no autocast, and gradients in those of their weights"


def dry_run_of_training(
    twin: Twin,
    arguments: Mapping[str, Any],
    training: Training,
    device: str = "cuda",
    capability: tuple[int, int] = FLASH_SINCE,
    *,
    progress: Progress | None = None,
    switches: Switches = NO_SWITCHES,
) -> Trace:
    """Follow one training step of `twin`, made as it is and in each way of `switches`, and return its timeline.

    `arguments` are those of the pipeline's own call, whose sizes are trained with. A LoRA is added to the twin. Raises
    BadInput where the call does not run the component, and where that gives nothing to train by.
    """
    name = trained_component(twin, training)
    module, inputs = twin.components()[name], _inputs(twin, arguments, name, training.batch, (device, capability))
    adapted = add_lora(module, training.rank, training.targets, twin.mode) if training.kind == LORA else ()
    if not adapted:
        for weight in module.parameters():
            weight.requires_grad_(weight.is_floating_point())
    step = TrainingStep(name, module, inputs, twin, (device, capability), twice=training.accumulate > 1)
    calls = step.follow((), NO_SWITCHES)
    found = _distinct(step, calls, switches, progress)
    trained = tuple(_fact(path, weight) for path, weight in module.named_parameters() if weight.requires_grad)
    learned = [(key, show(value)) for key, value in inputs.items()][:1]
    named = [(key, show(value)) for key, value in arguments.items() if key != "prompt"]
    shown = (*named, *learned, *((("targets", show(adapted)),) if adapted else ()))
    timeline = tuple(Step(number, training.accumulate - 1 if number else 1) for number in range(len(calls)))
    assumptions = (*twin.assumptions, BEFOREHAND.format(name), AS_LOADED.format(name), *step.assumptions)
    reasons = () if found else dict.fromkeys(step.failed.values())
    assumptions += tuple(f"{name} is trained as it is: {words}" for words in reasons)
    failed = tuple((name, way, words) for way, words in step.failed.items())
    return Trace(device, calls, timeline, found, shown, assumptions, failed, (name,), trained=trained)


def _distinct(
    step: "TrainingStep", plain: tuple[Call, ...], switches: Switches, progress: Progress | None
) -> tuple[Call, ...]:
    """The step in each of the ways that hold other memory than it does as it is, and than the ways before it."""
    seen, found = {plain[0].segments}, list[Call]()
    for way in switches:
        if progress:
            progress(f"dry run: {step.component} {way}")
        calls = step.attempt(way, switches)
        if calls and calls[0].segments not in seen:
            seen.add(calls[0].segments)
            found += calls
    return tuple(found)


def trained_component(twin: Twin, training: Training) -> str:
    """The name of the component to train: the one that is named, else the largest denoiser, else the only module.

    Raises BadInput for a name that the pipeline lacks, and where a name is needed.
    """
    parts = twin.components()
    if training.component in parts:
        return training.component
    denoisers = [n for n, part in parts.items() if phase(part, n, "forward") == "denoising"]
    denoisers = [n for n in denoisers if not hasattr(parts[n], "decode")] or list(parts)[: len(parts) == 1]
    if training.component or not denoisers:
        wanted = f"no component {training.component!r}" if training.component else "no denoiser"
        raise BadInput(f"{twin.name} has {wanted} to train: name one of {', '.join(parts)}")
    return max(denoisers, key=lambda n: sum(weight.numel() for weight in parts[n].parameters()))


# ---- what it is given ------------------------------------------------------------------------------------------------
class _Reached(Exception):
    """The component is called, with these arguments."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        """By name."""
        super().__init__()
        self.arguments = arguments


def _inputs(
    twin: Twin, arguments: Mapping[str, Any], name: str, batch: int | None, kind: tuple[str, tuple[int, int]]
) -> dict[str, Any]:
    """The arguments of the first call of component `name`, for as many samples as are wanted, as fake tensors."""
    module, (device, capability) = twin.components()[name], kind
    forward = module.forward

    @wraps(forward)
    def stop(*args: Any, **kwargs: Any) -> Any:
        raise _Reached(inspect.signature(forward).bind(*args, **kwargs).arguments)

    vars(module)["forward"] = stop
    try:
        dry_run(twin, arguments, device, None, capability)
    except _Reached as reached:
        alone = set(twin.components()) == {name}
        return _resized(reached.arguments, batch or (None if alone else 1))
    finally:
        del vars(module)["forward"]
    raise BadInput(f"this call does not run {name}, so that what to train it with is not known")


def _resized(given: dict[str, Any], batch: int | None) -> dict[str, Any]:
    """The same arguments with so many samples, each like the last one that was given, or with as many as there are."""
    first = next(iter(given.values()))
    samples = len(first) if isinstance(first, list) or (isinstance(first, torch.Tensor) and first.dim()) else 0

    def sized(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() and len(value) == samples:
            return _repeated(value, batch or samples)
        if type(value) is list and len(value) == samples:
            return value[-1:] * (batch or samples)
        if isinstance(value, dict):
            return {key: sized(entry) for key, entry in value.items()}
        return tuple(map(sized, value)) if type(value) is tuple else value

    return {name: value if name in SHARED else sized(value) for name, value in given.items()}


def _repeated(tensor: torch.Tensor, times: int) -> torch.Tensor:
    """The last sample of a fake tensor so many times, with its values where they are known."""
    if len(tensor) == times:
        return tensor
    known, times_each = value_of(tensor), (times, *[1] * (tensor.dim() - 1))
    made = tensor[-1:].repeat(times_each)
    vars(made).pop("value", None)
    if known and isinstance(made, FakeTensor):
        keep(made, known.tensor[-1:].repeat(times_each), known.memory.sources)
    return made


# ---- the step --------------------------------------------------------------------------------------------------------
@dataclass
class TrainingStep:
    """Forward and backward of `component`, done `twice` where gradients are added up; `inputs` are by name.

    `failed` says which ways fail, and in which words.
    """

    component: str
    module: torch.nn.Module
    inputs: dict[str, Any]
    twin: Twin
    kind: tuple[str, tuple[int, int]]
    twice: bool = False
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
        with self._in_training(), seen[0], seen[1], seen[2], Kernels(ledger, device, capability, training=True):
            recordings = [self._record(ledger) for _ in range(1 + self.twice)]
        self.assumptions |= ledger.assumptions
        entries = zip((("forward", FIRST), ("accumulate", LATER)), recordings, strict=False)
        return tuple(Entry(self.component, *names, r, r.base, variant=ways).call() for names, r in entries)

    @contextmanager
    def _in_training(self) -> Generator[None]:
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
                inputs = tree_map(_detached, self.inputs)
                result = self.module(**inputs)
                losses = [_loss(tensor) for tensor in _learned(result, self.component)]
                ledger.cut()
                _backward([loss for loss, _ in losses])  # the result is there meanwhile, as in most loops
                del result, losses, inputs
        finally:
            recording = ledger.end(interrupted)
        return recording


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def _learned(result: Any, component: str) -> list[torch.Tensor]:
    """The tensors of a result that are learned from. Raises BadInput where there is none."""
    learned = [tensor for tensor in tensors_in(tree_leaves(result)) if tensor.requires_grad]
    if not learned:
        raise BadInput(f"{component} returns nothing that depends on what is trained")
    return learned


def _loss(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean squared error of `tensor`, and what its storage is larger by: PyTorch shrinks that of all squares to it.

    Source: `mse_loss_out` of ATen/native/Loss.cpp, whose resized output keeps its storage; seen in the profiler.
    """
    learned, target = tensor.float(), torch.empty_like(tensor).detach().float()
    return F.mse_loss(learned, target), torch.empty_like(learned).detach()


def _backward(losses: list[torch.Tensor]) -> None:
    """What torch.autograd.backward() does, but with function modes on: what is computed again there needs them too."""
    ones = tuple(torch.ones_like(loss) for loss in losses)
    _engine_run_backward(tuple(losses), ones, False, False, (), allow_unreachable=True, accumulate_grad=True)


def _fact(path: str, weight: torch.Tensor) -> Trained:
    return Trained(path, tuple(weight.shape), str(weight.dtype).removeprefix("torch."))
