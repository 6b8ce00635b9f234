"""The torso of a denoiser: the linear layers and convolutions of its blocks, without what leads in and out."""

from typing import Any

from memplan.strategy import Undo

from .own_dtype import fitted
from .trimmed import trim
from .way_back import switched

EDGES = ("embed", "norm", "proj")
"""What the paths of lists outside the torso have in them: refiners inside embedders, lists of projections."""
SELECTION = (
    '    kept = set(getattr(part, "_keep_in_fp32_modules", None) or ())',
    "    lists = [path for path, m in part.named_modules() if isinstance(m, ModuleList)]",
    "    outer = [*lists, *(path for path, m in part.named_modules() if 'Block' in type(m).__name__)]",
    f"    edges = [path for path in outer if any(word in path.partition('.')[0] for word in {EDGES})]",
    '    blocks = tuple(f"{path}." for path in outer if path and path not in edges)',
)
"""The lines that find the blocks of `part`."""
SELECTED = "isinstance(layer, (Linear, _ConvNd)) and path.startswith(blocks) and kept.isdisjoint(path.split('.'))"
"""Whether the `layer` at `path` is in them."""


def converts(part: Any) -> bool:
    """Whether a model casts its torso itself: its code knows the dtype then, and casts to it as it goes."""
    return callable(getattr(part, "convert_to", None))


def torso(part: Any) -> list[Any]:
    """The layers of `part` to cast: those in its outermost lists of modules or in a "block", such as a U-Net's middle.

    What the class wants in float32 (`_keep_in_fp32_modules` of diffusers) is left out.
    """
    from torch.nn import Linear, ModuleList
    from torch.nn.modules.conv import _ConvNd

    kept = set(getattr(part, "_keep_in_fp32_modules", None) or ())
    outer = [
        path
        for path, module in part.named_modules()
        if path and (isinstance(module, ModuleList) or "Block" in type(module).__name__)
    ]
    blocks = tuple(f"{path}." for path in outer if not any(word in path.partition(".")[0] for word in EDGES))
    return [
        layer
        for path, layer in part.named_modules()
        if isinstance(layer, Linear | _ConvNd) and path.startswith(blocks) and kept.isdisjoint(path.split("."))
    ]


def recast(part: Any, dtype: str, keep: bool) -> Undo:
    """Has the torso of `part` compute in `dtype`; the value undoes it where the weights are to be kept, else nothing.

    Where it fails, what was kept is put back at once.
    """
    import torch
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    kind = getattr(torch, dtype)
    weights = [*part.parameters(), *part.buffers()] if keep else []
    before = [(weight, weight.data) for weight in weights]
    tables = [(table, dict(table)) for m in part.modules() for table in (m._parameters, m._buffers)] if keep else []

    def restore() -> None:
        for weight, data in before:
            weight.data = data
        for table, entries in tables:
            table.clear()
            table.update(entries)

    def cast() -> None:
        if converts(part):
            part.convert_to(kind)
            return
        for layer in torso(part):
            for weight in layer.parameters(recurse=False):
                if weight.is_floating_point() and not is_traceable_wrapper_subclass(weight.data):  # else quantized
                    weight.data = weight.data.to(kind)
            trim()
        fitted(part)

    try:
        undo = switched(list(part.modules()), cast)
    except BaseException:
        restore()
        raise

    def back() -> None:
        undo()
        restore()

    return back
