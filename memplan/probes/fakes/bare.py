"""Copies a module without its weights, so that a library's hooks can be tried on the copy and read back."""

from copy import copy as shallow
from typing import Any

import torch

INSTALLED = ("forward", "_old_forward", "_hf_hook", "_diffusers_hook", "_apply")
"""Attributes that hooks leave on a module instance; a bare copy starts without them."""

WRITTEN = ("MatmulLtState",)
"""Classes of attributes that a module writes to when it is moved: bitsandbytes' 8-bit layers do. A copy has its own."""


def bare(module: torch.nn.Module) -> torch.nn.Module:
    """`module` with meta tensors for weights: same classes, names, dtypes and ties, no bytes and no hooks.

    What is neither a module nor a weight is shared with the original, whose own attributes are never written.
    """
    return _module(module, {})


def _module(module: torch.nn.Module, made: dict[int, Any]) -> torch.nn.Module:
    if id(module) in made:
        return made[id(module)]
    copy: torch.nn.Module = object.__new__(type(module))
    made[id(module)] = copy
    state = {name: _own(value) for name, value in vars(module).items() if name not in INSTALLED}
    state["_parameters"] = {name: _tensor(p, made) for name, p in module._parameters.items()}
    state["_buffers"] = {name: _tensor(b, made) for name, b in module._buffers.items()}
    state["_modules"] = {name: m if m is None else _module(m, made) for name, m in module._modules.items()}
    vars(copy).update(state)
    return copy


def _own(value: Any) -> Any:
    return shallow(value) if type(value).__name__ in WRITTEN else value


def _tensor(tensor: torch.Tensor | None, made: dict[int, Any]) -> torch.Tensor | None:
    if tensor is None:
        return None
    if id(tensor) not in made:
        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        parameter = isinstance(tensor, torch.nn.Parameter)
        made[id(tensor)] = torch.nn.Parameter(empty, requires_grad=False) if parameter else empty
    return made[id(tensor)]
