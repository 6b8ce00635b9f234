"""Adapters that peft has put around a module's layers: LoRAs and their kin.

peft wraps each layer that it adapts. The wrapper keeps the layer as `base_layer`, and names in `adapter_layer_names`
the attributes that hold the adapters' own weights; peft may be absent, so wrappers are told by that.
"""

from collections.abc import Iterator
from typing import Any

import torch

from memplan.errors import Unsupported


def adapted(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Path and wrapper of each layer of `module` that has adapters."""
    yield from ((path, part) for path, part in module.named_modules() if hasattr(part, "adapter_layer_names"))


def trainable(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """The weights of the adapters in `module` that are active, which a training step of them trains."""
    for _, layer in adapted(module):
        tables = [getattr(layer, name) for name in layer.adapter_layer_names]
        own = (table[name] for table in tables for name in layer.active_adapters if name in table)
        for part in own:
            yield from part.parameters() if isinstance(part, torch.nn.Module) else (part,)


def attributes(module: torch.nn.Module) -> tuple[str, ...]:
    """The attributes of the wrappers in `module` that hold weights of adapters, such as lora_A."""
    return tuple(dict.fromkeys(name for _, layer in adapted(module) for name in layer.adapter_layer_names))


def variants(module: torch.nn.Module) -> Iterator[tuple[str, str]]:
    """Path and kind of each LoRA that is computed from weights, its own or the base layer's, without calling layers.

    DoRA is one: it adds the weights up to norm them. One that is fused into its base layer is no more than that.
    """
    for path, layer in adapted(module):
        for variant in {} if layer.merged else getattr(layer, "lora_variant", {}).values():
            kind = type(variant).__name__
            yield path, "DoRA" if "Dora" in kind else kind


def check(name: str, module: torch.nn.Module) -> None:
    """Raises Unsupported where component `name` computes with float8 weights of an adapter, or from them."""
    for path, layer in adapted(module):
        own = [part for part in map(layer._modules.get, layer.adapter_layer_names) if part is not None]
        if any(_float8_for_good(part) for table in own for part in table.modules()):
            raise Unsupported(
                f"{name}.{path} has an adapter in float8, in which torch does not compute: it was loaded after "
                f"layerwise casting. Load the LoRA first, then cast."
            )
    for path, kind in variants(module):
        if any(p.dtype.itemsize == 1 and p.dtype.is_floating_point for p in module.get_submodule(path).parameters()):
            raise Unsupported(
                f"{name}.{path} has a {kind}, which reads weights that layerwise casting stores in float8: torch "
                f"refuses to add them up. Fuse it first, then cast, or leave out layerwise casting."
            )


def _float8_for_good(part: torch.nn.Module) -> bool:
    """Whether a module has float8 weights of its own that no hook casts up."""
    hooks = getattr(vars(part).get("_diffusers_hook"), "hooks", {})
    weights = part._parameters.values()
    float8 = any(w is not None and w.dtype.is_floating_point and w.dtype.itemsize == 1 for w in weights)
    return float8 and "layerwise_casting" not in hooks
