"""Measures one call of a live pipeline, and puts its figures beside what was predicted for it."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from inspect import signature
from typing import Any

import torch

from memplan.errors import BadInput
from memplan.faces.history.expected import Expected, expected, words
from memplan.faces.history.meters import Meter
from memplan.faces.history.record import PEAKED, Figures, Phase, Place, Record
from memplan.faces.history.stretches import Stretches, watched
from memplan.faces.oom.held import held
from memplan.faces.oom.retry import RETRIED
from memplan.faces.oom.scene import NOT_OF_A_PLAN
from memplan.faces.target import HERE, Target
from memplan.facts import Gpu
from memplan.oom import Allocation
from memplan.probes.machine import probe_gpu
from memplan.simulator.device import blas_workspace

MADE_AGAIN = Expected(why_none="memory ran out on the way, and what failed was made again with less of it")


class Measuring:
    """A call of `pipe` with the arguments `call` that is being measured, from now until stop().

    Where it shall be `clean` the allocator gives its cache back before.
    """

    def __init__(self, pipe: Any, call: Mapping[str, Any], target: Target = HERE, *, clean: bool = False) -> None:
        self.pipe, self.call, self.target, self.clean = pipe, call, target, clean
        self.device = device_of(pipe)
        RETRIED.discard(pipe)
        self.gpu, meter = _gpu(self.device.index or 0), Meter(self.device)
        if clean:
            meter.clean()
        weights = held(Allocation(kind=self.device.type, index=self.device.index), (pipe,)).of_weights
        self.beside = max(meter.held() - weights - blas_workspace(self.gpu), 0)
        self._end = ExitStack()
        self.stretches: Stretches = self._end.enter_context(watched(pipe, meter))

    def stop(self) -> None:
        """The call has ended, well or not; a second time it does nothing."""
        self._end.close()

    def record(self, predict: Callable[[], Expected] | None = None) -> Record:
        """What was measured beside the prediction, which takes a dry run where no plan is applied."""
        if self.pipe in RETRIED:
            found = MADE_AGAIN
        else:
            found = predict() if predict else expected(self.pipe, self.call, self.target)
        name = type(self.pipe).__name__
        return Record(
            datetime.now(UTC).isoformat(timespec="seconds").removesuffix("+00:00"),
            _place(self.gpu),
            found.model or name,
            name,
            found.content,
            digest(self.call),
            words(self.call),
            found.plan,
            self.device.type,
            self.beside,
            self.clean,
            found.why_none,
            _beside(found, self.stretches.taken),
        )


def _beside(found: Expected, taken: Mapping[tuple[str, str], Figures]) -> tuple[Phase, ...]:
    """The phases in the order in which they were measured, and then those that were only predicted."""
    predicted = {(phase, component): figures for phase, component, figures in found.phases}
    places = (*taken, *(place for place in predicted if place not in taken))
    return tuple(Phase(*at, predicted.get(at, Figures()), taken.get(at, Figures())) for at in places)


def device_of(pipe: Any) -> torch.device:
    """The accelerator that a pipeline computes on, or the CPU where none of its components goes to one."""
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    hooks = (getattr(part, "_hf_hook", None) for part in parts)
    asked = [getattr(hook, "execution_device", None) for hook in hooks]
    weights = [weight.device for part in parts for weight in part.parameters()]
    named = [torch.device(device) for device in (pipe._execution_device, *asked, *weights) if device is not None]
    return next((device for device in named if device.type in PEAKED), named[0])


def given(pipe: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that a prediction rests on, by name. Raises TypeError as the call does."""
    called = signature(type(pipe).__call__)
    bound = called.bind_partial(pipe, *args, **kwargs).arguments
    rest = [name for name, parameter in called.parameters.items() if parameter.kind is parameter.VAR_KEYWORD]
    named = {name: value for name, value in bound.items() if name not in rest}
    named |= {key: value for name in rest for key, value in bound.get(name, {}).items()}
    counts = (name for name, value in named.items() if value is not None and not callable(value))
    return {name: named[name] for name in counts if name not in NOT_OF_A_PLAN}


def digest(call: Mapping[str, Any]) -> str:
    """What tells calls with other arguments apart; of tensors and pictures only their sizes."""
    words = {name: _whole(value) for name, value in call.items()}
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:32]


def _whole(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    if isinstance(value, str | int | float | bool | None):
        return value
    size = getattr(value, "shape", getattr(value, "size", ""))
    return f"{type(value).__name__} {size if not callable(size) else ''}"


# ---- the machine -----------------------------------------------------------------------------------------------------
def _gpu(index: int) -> Gpu | None:
    try:
        return probe_gpu(index)
    except BadInput:
        return None


def _place(gpu: Gpu | None) -> Place:
    card = (gpu.name, gpu.driver) if gpu else ("", "")
    return Place(*card, *map(version, ("torch", "diffusers", "memplan")))
