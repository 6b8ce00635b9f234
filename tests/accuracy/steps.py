"""Dry runs of training steps with the CPU's kernels against real steps on this CPU."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from memplan.facts import LORA, Call, Trace, Training
from memplan.probes.fakes.lora import usual
from memplan.probes.sources import open_pipeline
from memplan.probes.trace.training import dry_run_of_training
from memplan.registry import switches
from memplan.strategies import GradientCheckpointing
from memplan.strategy import Switch
from tests.accuracy.measured import peak_of
from tests.pipelines import build, inputs

BATCH = 16
RANK = 4


def denoiser(pipe: Any) -> str:
    """The name of the component that is trained."""
    return "unet" if hasattr(pipe, "unet") else "transformer"


class _Reached(Exception):
    pass


def given(pipe: Any, call: dict[str, Any], batch: int = BATCH) -> dict[str, Any]:
    """What the denoiser is given first in `call`, for so many samples."""
    part, found = getattr(pipe, denoiser(pipe)), dict[str, Any]()
    forward = part.forward

    def stop(**kwargs: Any) -> Any:
        found.update(kwargs)
        raise _Reached

    part.forward = lambda *args, **kwargs: stop(**dict(zip(_names(forward), args, strict=False)), **kwargs)
    try:
        pipe(**call)
    except _Reached:
        pass
    finally:
        del part.forward
    samples = len(next(iter(found.values())))

    def sized(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: sized(key, entry) for key, entry in value.items()}
        alike = isinstance(value, torch.Tensor) and value.dim() and len(value) == samples and not name.endswith("_ids")
        if not alike and name != "time_ids":
            return value
        return value[-1:].repeat(batch, *[1] * (value.dim() - 1))

    return {name: sized(name, value) for name, value in found.items()}


def _names(forward: Callable[..., Any]) -> list[str]:
    from inspect import signature

    return list(signature(forward).parameters)


def adapt(part: Any, rank: int = RANK, *, wide: bool = False) -> None:
    """A LoRA beside the layers that are usual, as peft makes it; where that is `wide`, in float32."""
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(usual(part))), part)
    if wide:
        cast_training_params(part, dtype=torch.float32)


def step_of(part: Any, arguments: dict[str, Any], autocast: str = "") -> Callable[[], None]:
    """A forward and backward of `part`, the forward under autocast to that dtype."""

    def step() -> None:
        with torch.autocast("cpu", getattr(torch, autocast)) if autocast else nullcontext():
            out = part(**arguments)
        out = out[0] if isinstance(out, tuple) else out.sample
        F.mse_loss(out.float(), torch.zeros_like(out).float()).backward()

    return step


@dataclass(frozen=True)
class Steps:
    """Peaks in bytes above what was there: of the dry run and of the real one."""

    traced: int
    measured: int

    @property
    def error(self) -> float:
        """Relative error of the dry run."""
        return self.traced / self.measured - 1


def ways(intervals: Sequence[int] = (1, 2, 4)) -> dict[str, Switch]:
    """The ways of a dry run that checkpoint so many blocks."""
    return switches(f"{GradientCheckpointing.name}:interval={interval}" for interval in intervals)


def traced(
    family: str, training: Training, size: str = "tiny", first: Callable[[Any], Any] = lambda pipe: None
) -> Trace:
    """The dry run of a step of the family's denoiser; `first` is done to the pipeline before."""
    pipe = build(family, size)
    first(pipe)
    made = open_pipeline(pipe)
    return dry_run_of_training(made, inputs(family, size), training, "cpu", switches=ways())


def measured(
    family: str,
    training: Training,
    interval: int | None,
    size: str = "tiny",
    *,
    first: Callable[[Any], Any] = lambda pipe: None,
    then: Callable[[Any], Any] = lambda pipe: None,
) -> tuple[int, int]:
    """The peaks of a real step, forward and backward: without gradients before it, and with.

    `first` is done to the pipeline before all else, and `then` after its blocks are checkpointed.
    """
    pipe = build(family, size)
    name = denoiser(pipe)
    part, arguments = getattr(pipe, name), given(pipe, inputs(family, size), training.batch or BATCH)
    first(pipe)
    if training.kind == LORA:
        adapt(part, wide=bool(training.autocast))
    part.train()
    undo = GradientCheckpointing(name, interval).apply(pipe, "cpu") if interval else None
    then(pipe)
    step = step_of(part, arguments, training.autocast)
    step()
    part.zero_grad(set_to_none=True)
    peaks = peak_of(step)[1], peak_of(step)[1]
    if undo:
        undo()
    return peaks


def call_of(trace: Trace, interval: int | None, number: int = 0) -> Call:
    """The call with every `interval`-th block checkpointed; None as it is."""
    plain = trace.calls[number]
    ways = frozenset({f"checkpointed:{interval}"}) if interval else frozenset[str]()
    return trace.alternative(plain, ways)
