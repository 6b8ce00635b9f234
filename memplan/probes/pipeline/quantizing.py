"""Reads which linear layers the quantizers of the libraries leave as they are, and what cannot be quantized."""

from collections import Counter
from collections.abc import Iterable, Iterator

import torch
from diffusers import ModelMixin
from transformers import PreTrainedModel
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from memplan.facts import BY_MODULE, BY_WEIGHT
from memplan.probes.fakes import adapters, quantized


def columns(module: torch.nn.Module) -> dict[int, int]:
    """Input features of each linear layer's matrix, by the id of the weight; none for one that modules share.

    None either for one of a single column, which is no smaller with its scales, nor for that of a subclass, which
    others may read: that of attention's `out_proj` is.
    """
    holders = Counter(id(weight) for part in module.modules() for weight in part._parameters.values())
    linear = [layer for _, layer in _linear(module) if _converted(layer)]
    return {id(layer.weight): layer.in_features for layer in linear if holders[id(layer.weight)] == 1}


def _linear(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Linear]]:
    return ((path, layer) for path, layer in module.named_modules() if isinstance(layer, torch.nn.Linear))


def _converted(layer: torch.nn.Linear) -> bool:
    return type(layer) is torch.nn.Linear and layer.in_features > 1


def loading_lack(module: torch.nn.Module) -> str | None:
    """The sentence that says why the libraries' loaders quantize what is left here, or None when they do not."""
    left = next((f"{path}, a {type(layer).__name__}" for path, layer in _linear(module) if not _converted(layer)), None)
    return f"{type(module).__name__} is quantized once it is loaded: the loaders would convert {left}" if left else None


def spared(module: torch.nn.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """For each way to look it up the modules that a quantizer leaves, where they are or have linear layers.

    diffusers' quantizers leave what its class keeps in float32; those of transformers that, tied weights, the head and
    the last module.
    """
    linear = [path for path, layer in _linear(module) if _converted(layer)]
    if isinstance(module, PreTrainedModel):
        names = HfQuantizer.get_modules_to_not_convert(module, None, list(module._keep_in_fp32_modules or ()))
        for way, suffix in ((BY_MODULE, ""), (BY_WEIGHT, ".weight")):
            yield way, _short(names, [path for path in linear if not should_convert_module(path + suffix, names)])
    elif isinstance(module, ModelMixin):
        names = getattr(module, "_keep_in_fp32_modules", None) or []
        kept = [path for path in linear if any(f".{name}." in f".{path}." for name in names)]
        for way in (BY_MODULE, BY_WEIGHT):
            yield way, _short(names, kept)


def _short(names: Iterable[str], paths: list[str]) -> tuple[str, ...]:
    """`paths` in as few names as may be: those of the library where one covers several, else the paths themselves."""
    short: dict[str, None] = {}
    for path in paths:
        covering = (name for name in sorted(names) if f".{name}." in f".{path}.")
        short[next(covering, path)] = None
    return tuple(short)


def lack(module: torch.nn.Module) -> str | None:
    """The sentence that says why this component cannot be quantized, or None when it can."""
    kind = type(module).__name__
    packed = any(quantized.is_quantized(weight) or hasattr(weight, "quant_type") for weight in module.parameters())
    if packed or any(hasattr(layer, "weight_quantizer") for layer in module.modules()):  # which is ModelOpt's
        return f"{kind} is stored quantized already"
    if any(map(quantized.is_float8, module.parameters())):
        return f"{kind} is stored in float8 already"
    if any(adapters.adapted(module)):
        return f"{kind} has an adapter beside its layers, such as a LoRA: unload it, quantize, and load it again"
    if any("forward" in vars(layer) for _, layer in _linear(module)):
        return f"{kind} has layers that are called through hooks, which quantized ones would lack: load it anew"
    if not columns(module):
        return f"{kind} has no linear layers, and quantizers convert no others"
    return None
