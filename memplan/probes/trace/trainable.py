"""Has what a training step trains ask for gradients, and refuses what cannot be trained or followed."""

from collections.abc import Iterator

import torch

from memplan.errors import BadInput
from memplan.facts import LORA, Training
from memplan.probes.fakes import adapters
from memplan.probes.fakes.lora import add_lora
from memplan.probes.fakes.quantized import is_float8, is_quantized
from memplan.probes.fakes.twin import Twin

OWN_ADAPTERS = "the adapters that {} has are trained, with their own rank and layers"


def asked_for(
    name: str, module: torch.nn.Module, training: Training, twin: Twin
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The layers of `module` that a LoRA is added to, by name, and what is assumed; component `name` is trained.

    Adapters that are there already are trained as they are. Raises BadInput for weights in a format that cannot be
    trained, or beside which adapters are not followed.
    """
    check(name, module, training)
    own = list(adapters.trainable(module)) if training.kind == LORA else []
    if training.kind == LORA and not own:
        dtype = torch.float32 if training.autocast else None
        return add_lora(module, training.rank, training.targets, twin.mode, dtype), ()
    for weight in own or module.parameters():
        weight.requires_grad_(weight.is_floating_point())
    return (), (OWN_ADAPTERS.format(name),) if own else ()


def check(name: str, module: torch.nn.Module, training: Training) -> None:
    """Raises BadInput where weights are in a format that has no gradients, or whose backward is not followed.

    bitsandbytes' layers of 4 bits keep the packed weight alone for their backward, and make it anew there
    (`MatMul4Bit` of bitsandbytes/autograd/_functions.py).
    """
    found = set(filter(None, map(_format, module.parameters())))
    if found and training.kind != LORA:
        rest = 'train adapters beside them, with Training("lora") or --train lora'
        raise BadInput(f"weights of {name} are stored in {' and '.join(sorted(found))}, and have no gradients: {rest}")
    if found - {FOUR_BITS}:
        stored = " and ".join(sorted(found - {FOUR_BITS}))
        rest = "adapters are priced beside plain weights and those of bitsandbytes in 4 bits"
        raise BadInput(f"weights of {name} are stored in {stored}, whose backward is not followed: {rest}")


FOUR_BITS = "bitsandbytes' 4 bits"


def _format(weight: torch.Tensor) -> str:
    """What a weight is stored in, "" for a plain one."""
    return next(_formats(weight), "")


def _formats(weight: torch.Tensor) -> Iterator[str]:
    beside = vars(weight)
    if beside.get("quant_state") is not None:
        yield FOUR_BITS
    if beside.get("SCB") is not None:
        yield "bitsandbytes' 8 bits"
    if beside.get("quant_type") is not None:
        yield "a GGUF file's format"
    if is_quantized(weight):
        yield f"the format of {type(weight).__name__}"
    if is_float8(weight):
        yield "8-bit floats"
