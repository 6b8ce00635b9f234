"""Reads which weights layerwise casting stores in 8 bits, by letting the installed diffusers cast a bare copy."""

from collections.abc import Mapping

import torch
from diffusers import ModelMixin
from diffusers.hooks import apply_layerwise_casting
from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN

from memplan.probes.fakes import adapters, quantized
from memplan.probes.fakes.bare import bare

STORAGE = torch.float8_e4m3fn
TEXT_ENCODERS = ("CLIPText", "T5Encoder", "UMT5Encoder")
"""Names that open the transformers classes whose code works on leaves cast back after each call."""
TEXT_ENCODER_SKIP = (*DEFAULT_SKIP_MODULES_PATTERN, "embed", "shared", r"\.wo$")
"""Embeddings give a text encoder its dtype, and T5 casts activations to the dtype of `wo`: both stay as they are."""
BROKEN = {"CosmosControlNet": "its position embedding does not survive the cast"}
"""diffusers classes for which the library itself skips its casting tests, and why."""


def cast_skip(module: torch.nn.Module) -> tuple[str, ...]:
    """Patterns of module names to spare, or () for a diffusers model, whose class has its own.

    Adapters are spared, as diffusers does in its models: they are small, and peft casts activations to their dtype.
    """
    return () if isinstance(module, ModelMixin) else (*TEXT_ENCODER_SKIP, *adapters.attributes(module))


def lack(module: torch.nn.Module, dtype: str) -> str | None:
    """The sentence that says why layerwise casting is not to be had here, or None when it is."""
    kind = type(module).__name__
    config = getattr(module, "config", None)
    if not isinstance(module, ModelMixin) and not kind.startswith(TEXT_ENCODERS):
        return f"{kind} takes its dtype from its weights, so weights in float8 would spread into its activations"
    if kind in BROKEN:
        return f"layerwise casting does not work on {kind}: {BROKEN[kind]}"
    if dtype == "float16" and getattr(config, "force_upcast", False):
        return f"this {kind} in float16 is cast to float32 for each decode, which undoes the cast to float8"
    if any(map(quantized.is_float8, module.parameters())):
        return f"{kind} is stored in float8 already"
    for path, variant in adapters.variants(module):
        return f"{path} of {kind} has a {variant}, and torch does not add up the float8 weights that it would read"
    return None


def cast(module: torch.nn.Module, index: Mapping[str, int]) -> tuple[int, ...]:
    """Numbers of the weights that change their dtype; `index` numbers the weights by name."""
    copy = bare(module)
    before = {name: tensor.dtype for name, tensor in _weights(copy).items()}
    if isinstance(copy, ModelMixin):
        copy.enable_layerwise_casting(storage_dtype=STORAGE)
    else:
        apply_layerwise_casting(copy, STORAGE, torch.float32, skip_modules_pattern=cast_skip(module))
    after = _weights(copy)
    return tuple(sorted({index[name] for name in index if after[name].dtype != before[name]}))


def _weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())
