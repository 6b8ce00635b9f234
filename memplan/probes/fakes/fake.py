"""Fake weights: tensors with shape and dtype but no bytes, in modules that can still be cast and run."""

from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from memplan.probes.fakes.values import carries, exact, keep, snapshot

CPU = torch.device("cpu")
Layout = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]
"""Size, stride in elements, and dtype."""


def fresh_mode() -> FakeTensorMode:
    """The mode of one twin. It lets real tensors in: constants that a module keeps outside its parameters."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def fake_tensor(
    mode: FakeTensorMode, layout: Layout, base: torch.Tensor | None = None, offset: int = 0
) -> torch.Tensor:
    """A fake CPU tensor of `mode`: a new one, or a view of the storage of `base` from the element `offset` on.

    It is what FakeTensorMode makes, in a tenth of the time: past the dispatcher, with attributes copied from another.
    """
    size, stride, dtype = layout
    with torch._C._DisableTorchDispatch():
        if base is None:
            meta = torch.empty_strided(size, stride, dtype=dtype, device="meta")
        else:
            meta = torch.empty(0, dtype=dtype, device="meta")
            meta.set_(base.untyped_storage(), offset, size, stride)
        fake: Any = torch.Tensor._make_subclass(
            FakeTensor, meta, False, dispatch_device=True, device_for_backend_keys=CPU
        )
        torch._C._set_throw_on_mutable_data_ptr(fake)  # there are no data
    vars(fake).update(_attributes(), fake_mode=mode)
    return fake


@cache
def _attributes() -> dict[str, Any]:
    """What every new fake tensor has."""
    with torch._C._DisableTorchDispatch():
        return dict(vars(FakeTensor(fresh_mode(), torch.empty(0, device="meta"), CPU)))


def fake_of(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    """A fake CPU tensor of the same shape, strides and dtype; a parameter stays one, without gradient.

    Small integers and booleans keep their values.
    """
    fake: Any = fake_tensor(mode, (tensor.size(), tensor.stride(), tensor.dtype))
    if isinstance(tensor, torch.nn.Parameter):
        fake._is_param = True  # all that torch.nn.Parameter does to a tensor of a subclass
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
