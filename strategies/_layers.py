"""The linear layers that a quantizer converts: found, typed as a loop, given up one by one, and put back."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any


def layers(part: Any, spare: tuple[str, ...], sides: tuple[int, int] = (1, 1)) -> list[tuple[str, Any]]:
    """Path and layer of each linear layer of `part` that is converted.

    It is in no module named in `spare`, shares its weight with none, and its columns and rows are multiples of `sides`.
    """
    import torch

    names, (columns, rows) = [f".{name}." for name in spare], sides
    holders = Counter(id(weight) for module in part.modules() for weight in module._parameters.values())
    linear = ((path, layer) for path, layer in part.named_modules() if isinstance(layer, torch.nn.Linear))
    own = ((path, layer) for path, layer in linear if holders[id(layer.weight)] == 1)
    found = ((path, layer) for path, layer in own if not (layer.in_features % columns or layer.out_features % rows))
    return [(path, layer) for path, layer in found if not any(name in f".{path}." for name in names)]


def drained(found: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """One after the other, and none is kept: a layer that is replaced takes its original weight with it."""
    found.reverse()
    while found:
        yield found.pop()


def alias(weight: Any) -> Any:
    """The same weight as another parameter, which may be moved while the original stays in host memory."""
    import torch

    return torch.nn.Parameter(weight.data, requires_grad=False)


def kept(part: Any, path: str, layer: Any) -> Callable[[], None]:
    """Puts back `layer` at `path` of `part`, with all that it has now."""
    attributes, weight = dict(vars(layer)), layer._parameters["weight"]

    def restore(parent: Any, name: str) -> None:
        vars(layer).clear()
        vars(layer).update(attributes)
        layer._parameters["weight"] = weight
        parent._modules[name] = layer

    parent, _, name = path.rpartition(".")
    return partial(restore, part.get_submodule(parent), name)


def selection(component: str, spare: tuple[str, ...], sides: tuple[int, int] = (1, 1)) -> tuple[str, ...]:
    """The lines that open a loop over the layers to convert, as `path` and `layer`."""
    condition = "isinstance(layer, torch.nn.Linear)"
    for side, multiple in zip(("in_features", "out_features"), sides, strict=True):
        condition += f" and layer.{side} % {multiple} == 0" if multiple > 1 else ""
    if spare:
        names = "".join(f'".{name}.", ' for name in spare).rstrip()
        condition += f' and not any(name in f".{{path}}." for name in ({names}))'
    return (
        f"for path, layer in list(pipe.{component}.named_modules()):",
        f"    if {condition}:",
    )
