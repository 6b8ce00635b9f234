"""The linear layers that a quantizer converts: found, typed as a loop, given up one by one, and put back."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from memplan.strategy import Undo

from ..live.way_back import homes

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
"""Where a module has the hooks that people register on it."""


def layers(part: Any, spare: tuple[str, ...], sides: tuple[int, int] = (1, 1)) -> list[tuple[str, Any]]:
    """Path and layer of each linear layer of `part` that is converted.

    It is in no module named in `spare`, shares its weight with none, and its columns and rows are multiples of `sides`.
    One column is left, which is no smaller with its scales, and so are subclasses, whose weight may be read by others:
    that of attention's `out_proj` is.
    """
    import torch

    names, (columns, rows) = [f".{name}." for name in spare], sides
    holders = Counter(id(weight) for module in part.modules() for weight in module._parameters.values())
    linear = ((path, layer) for path, layer in part.named_modules() if type(layer) is torch.nn.Linear)
    own = ((path, layer) for path, layer in linear if layer.in_features > 1 and holders[id(layer.weight)] == 1)
    found = ((path, layer) for path, layer in own if not (layer.in_features % columns or layer.out_features % rows))
    return [(path, layer) for path, layer in found if not any(name in f".{path}." for name in names)]


def drained(found: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """One after the other, and none is kept: a layer that is replaced takes its original weight with it."""
    found.reverse()
    while found:
        yield found.pop()


def alias(weight: Any) -> Any:
    """The same weight as another parameter, which may be moved while the original stays where it is."""
    import torch

    return torch.nn.Parameter(weight.data, requires_grad=False)


def aliases(layer: Any) -> dict[str, Any]:
    """An alias of each weight of `layer`, by name."""
    return {key: weight if weight is None else alias(weight) for key, weight in layer._parameters.items()}


def kept(part: Any, path: str, layer: Any) -> Undo:
    """Keeps the weights of `layer` in host memory, and leaves it aliases of them; the value puts back what it was."""
    parent, _, name = path.rpartition(".")
    holder, attributes, back = part.get_submodule(parent), dict(vars(layer)), homes(layer)
    weights = [weight for weight in layer._parameters.values() if weight is not None]
    vars(layer)["_parameters"] = aliases(layer)
    for weight in weights:
        weight.data = weight.data.cpu()

    def restore() -> None:
        vars(layer).clear()
        vars(layer).update(attributes)
        holder._modules[name] = layer
        back()

    return restore


def twin(layer: Any, device: str) -> Any:
    """The same linear layer with its weights on `device`; `layer` and its weights stay as they are."""
    import torch

    made: Any = torch.nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    made._parameters.update(aliases(layer))
    return made.to(device)


def hooked_like(layer: Any, made: Any) -> None:
    """The hooks of `layer` are called around `made` in its place; removed from the one, they are from both."""
    vars(made).update({name: vars(layer)[name] for name in HOOKS})


def selection(component: str, spare: tuple[str, ...], sides: tuple[int, int] = (1, 1)) -> tuple[str, ...]:
    """The lines that open a loop over the layers to convert, as `path` and `layer`."""
    condition = "type(layer) is torch.nn.Linear and layer.in_features > 1"
    for side, multiple in zip(("in_features", "out_features"), sides, strict=True):
        condition += f" and layer.{side} % {multiple} == 0" if multiple > 1 else ""
    if spare:
        names = "".join(f'".{name}.", ' for name in spare).rstrip()
        condition += f' and not any(name in f".{{path}}." for name in ({names}))'
    return (
        f"for path, layer in list(pipe.{component}.named_modules()):",
        f"    if {condition}:",
    )
