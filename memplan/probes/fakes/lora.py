"""Puts a LoRA beside the layers of a fake component, as peft does beside those of a real one."""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from memplan.errors import BadInput
from memplan.probes.fakes.fake import fake_of, make_castable

USUAL = ("to_k", "to_q", "to_v", "to_out.0")
"""The layers that diffusers' training scripts adapt: the projections of attention (examples/dreambooth)."""
EXAMPLE = 'as in targets=("to_q", "to_v")'


def add_lora(
    module: torch.nn.Module,
    rank: int,
    targets: tuple[str, ...],
    mode: FakeTensorMode,
    dtype: torch.dtype | None = None,
) -> tuple[str, ...]:
    """Adapt the layers of `module` that `targets` name, or those that are usual; the weights added are fakes of `mode`.

    They have that dtype, or where none is given the one of the layers.
    Returns the names by which layers were chosen. Raises BadInput where there are none, and without peft.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise BadInput("a LoRA is planned as peft makes it: pip install peft") from None
    chosen = targets or usual(module)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(chosen))
    try:
        inject_adapter_in_model(config, module)
    except ValueError as error:
        raise BadInput(f"peft adapts no layer of {type(module).__name__}: {error}") from error
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None and not isinstance(weight, FakeTensor):
                fake: Any = fake_of(weight if dtype is None else _in_dtype(weight, dtype), mode)
                part._parameters[name] = fake.requires_grad_(weight.requires_grad)
    make_castable(module)
    return chosen


def _in_dtype(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.nn.Parameter(weight.detach().to(dtype))


def usual(module: torch.nn.Module) -> tuple[str, ...]:
    """The names of the layers that are usually adapted: those of diffusers' scripts, else peft's for the model's type.

    Raises BadInput where neither is known.
    """
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as OF_TYPES

    paths = [path for path, part in module.named_modules() if isinstance(part, torch.nn.Linear)]
    found = tuple(name for name in USUAL if any(f".{path}".endswith(f".{name}") for path in paths))
    kind = str(getattr(getattr(module, "config", None), "model_type", ""))
    if not found and kind not in OF_TYPES:
        raise BadInput(f"{type(module).__name__} has no layers that a LoRA usually adapts: name some, {EXAMPLE}")
    return found or tuple(OF_TYPES[kind])
