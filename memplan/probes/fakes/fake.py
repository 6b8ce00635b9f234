"""Fake weights: tensors with shape and dtype but no bytes, in modules that can still be cast and run."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from memplan.probes.fakes.values import carries, exact, keep, snapshot


def fresh_mode() -> FakeTensorMode:
    """The mode of one twin. It lets real tensors in: constants that a module keeps outside its parameters."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def fake_of(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    """A fake CPU tensor of the same shape, strides and dtype; a parameter stays one, without gradient.

    Small integers and booleans keep their values.
    """
    with mode:
        fake = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu")
        fake = torch.nn.Parameter(fake, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else fake
    if exact(tensor.dtype) and not isinstance(tensor, FakeTensor) and carries(tensor):
        keep(fake, snapshot(tensor))
    return fake


def fake_in_place(module: torch.nn.Module, mode: FakeTensorMode) -> None:
    """Replace every parameter and buffer of `module` by a fake one; tied tensors stay tied."""
    fakes: dict[int, torch.Tensor] = {}
    originals: list[torch.Tensor] = []  # kept alive, so that no id is used twice
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in fakes:
                    originals.append(tensor)
                    fakes[id(tensor)] = fake_of(tensor, mode)
                table[name] = fakes[id(tensor)]  # type: ignore[assignment]
    make_castable(module)


def make_castable(module: torch.nn.Module) -> None:
    """Let `.to(dtype)` work on fake weights, which torch cannot swap: some pipelines upcast their VAE within a call."""
    for part in module.modules():
        part.__dict__["_apply"] = MethodType(_apply_to_fakes, part)


def _apply_to_fakes(self: torch.nn.Module, fn: Callable[..., Any], recurse: bool = True) -> torch.nn.Module:
    """What nn.Module._apply does, with each parameter kept and its data replaced."""
    with torch.no_grad():
        for part in self.modules() if recurse else (self,):
            for parameter in part._parameters.values():
                if parameter is not None:
                    parameter.data = fn(parameter.data)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = fn(buffer)
    return self
