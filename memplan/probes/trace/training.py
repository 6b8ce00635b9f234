"""The dry run of a training step: forward and backward of one component, on fake weights and with fake gradients.

The pipeline's own call is followed up to that component, to learn what it is given. Losses are alike in what they hold:
here it is the mean squared error of what the component returns, in float32, as in diffusers' training scripts.
"""

from collections.abc import Mapping
from typing import Any

import torch

from memplan.errors import BadInput
from memplan.facts import DENOISING, Call, Step, Trace, Trained, Training
from memplan.probes.fakes.twin import Twin
from memplan.probes.trace import Progress, phase, show
from memplan.probes.trace.attention import FLASH_SINCE
from memplan.probes.trace.calling import NO_SWITCHES, Switches
from memplan.probes.trace.given import given_to, resized
from memplan.probes.trace.steps import TrainingStep
from memplan.probes.trace.trainable import asked_for

BEFOREHAND = "what {} is given is made beforehand: of the pipeline it alone is on the device"
AS_LOADED = "{} computes in the dtypes in which it is loaded: no autocast, and gradients in those of their weights"

UNDER_AUTOCAST = (
    "the forward of {} is under autocast to {}, which keeps copies of trained weights in it until the forward's end; "
    "loss and backward are outside"
)


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
    adapted, assumed = asked_for(name, module, training, twin)
    step = TrainingStep(name, module, inputs, twin, (device, capability), training.accumulate > 1, training.autocast)
    calls = step.follow((), NO_SWITCHES)
    found = _distinct(step, calls, switches, progress)
    trained = tuple(_fact(path, weight) for path, weight in module.named_parameters() if weight.requires_grad)
    learned = [(key, show(value)) for key, value in inputs.items()][:1]
    named = [(key, show(value)) for key, value in arguments.items() if key != "prompt"]
    shown = (*named, *learned, *((("targets", show(adapted)),) if adapted else ()))
    timeline = tuple(Step(number, training.accumulate - 1 if number else 1) for number in range(len(calls)))
    assumed = (BEFOREHAND.format(name), *assumed, _computed(name, training))
    assumptions = (*twin.assumptions, *assumed, *step.assumptions)
    reasons = () if found else dict.fromkeys(step.failed.values())
    assumptions += tuple(f"{name} is trained as it is: {words}" for words in reasons)
    failed = tuple((name, way, words) for way, words in step.failed.items())
    return Trace(device, calls, timeline, found, shown, assumptions, failed, (name,), trained=trained)


def _computed(name: str, training: Training) -> str:
    """In which dtypes the component computes."""
    return UNDER_AUTOCAST.format(name, training.autocast) if training.autocast else AS_LOADED.format(name)


def _distinct(
    step: TrainingStep, plain: tuple[Call, ...], switches: Switches, progress: Progress | None
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
    denoisers = [n for n, part in parts.items() if phase(part, n, "forward") == DENOISING]
    denoisers = [n for n in denoisers if not hasattr(parts[n], "decode")] or list(parts)[: len(parts) == 1]
    if training.component or not denoisers:
        wanted = f"no component {training.component!r}" if training.component else "no denoiser"
        raise BadInput(f"{twin.name} has {wanted} to train: name one of {', '.join(parts)}")
    return max(denoisers, key=lambda n: sum(weight.numel() for weight in parts[n].parameters()))


def _inputs(
    twin: Twin, arguments: Mapping[str, Any], name: str, batch: int | None, kind: tuple[str, tuple[int, int]]
) -> dict[str, Any]:
    """The arguments of the first call of component `name`, for as many samples as are wanted, as fake tensors."""
    given = given_to(twin, arguments, name, kind)
    if not given:
        raise BadInput(f"this call does not run {name}, so that what to train it with is not known")
    alone = set(twin.components()) == {name}
    return resized(given, batch or (None if alone else 1))


def _fact(path: str, weight: torch.Tensor) -> Trained:
    return Trained(path, tuple(weight.shape), str(weight.dtype).removeprefix("torch."))
