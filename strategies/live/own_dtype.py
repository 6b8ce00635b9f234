"""Gives each layer its inputs in the dtype of its own weight, so that layers of several dtypes work together."""

from functools import cache
from typing import Any

from memplan.facts import COMPUTED

HOOK = (
    "import torch",
    "from torch.nn import Linear, ModuleList",
    "from torch.nn.modules.conv import _ConvNd",
    "from diffusers.hooks import HookRegistry, ModelHook",
    "class OwnDtype(ModelHook):",
    "    def new_forward(self, layer, *args, **kwargs):",
    "        weights = list(layer.parameters(recurse=False))",
    "        def fit(x):",
    "            return x.to(weights[0].dtype) if torch.is_tensor(x) and x.is_floating_point() else x",
    "        result = self.fn_ref.original_forward(*map(fit, args), **{key: fit(x) for key, x in kwargs.items()})",
    "        is_norm = all(weight.dim() == 1 for weight in weights)",
    "        return result.to((*args, *kwargs.values())[0].dtype) if is_norm else result",
)
"""The hook as a user would write it."""
HUNG = (
    "        if list(layer.parameters(recurse=False)) and not list(layer.children()):",
    f'            HookRegistry.check_if_exists_or_initialize(layer).register_hook(OwnDtype(), "{COMPUTED}")',
)
"""How it is hung on a `layer`."""


def fitted(part: Any) -> None:
    """Hangs the hook on every layer of `part` that has weights and no layers inside."""
    from diffusers.hooks import HookRegistry

    for layer in list(part.modules()):
        if list(layer.parameters(recurse=False)) and not list(layer.children()):
            HookRegistry.check_if_exists_or_initialize(layer).register_hook(_hook()(), COMPUTED)


@cache
def _hook() -> Any:
    """The class, made when diffusers is there.

    A norm gives back the dtype that it was given: attention wants query, key and value in one, and only the first two
    are normalised. Other layers give that of their weight.
    """
    import torch
    from diffusers.hooks import ModelHook

    class OwnDtype(ModelHook):  # type: ignore[misc]
        def new_forward(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
            weights = list(layer.parameters(recurse=False))

            def fit(x: Any) -> Any:
                return x.to(weights[0].dtype) if torch.is_tensor(x) and x.is_floating_point() else x

            reference: Any = self.fn_ref
            result = reference.original_forward(*map(fit, args), **{key: fit(x) for key, x in kwargs.items()})
            is_norm = all(weight.dim() == 1 for weight in weights)
            return result.to((*args, *kwargs.values())[0].dtype) if is_norm else result

    return OwnDtype
