"""Hooks that lend a whole component to the device while it is called, and keep its weights at home."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from accelerate.utils.memory import clear_device_cache

from memplan.strategy import Undo

METHODS = ("encode", "decode")
"""Methods by which diffusers calls a VAE, beside its forward."""


class Visitor(ModelHook):  # type: ignore[misc]
    """Brings a module to `execution_device` when it is called; `leave` gives each weight what it had at home.

    What was changed on the device meanwhile goes home as it is. accelerate calls it; diffusers reads the device.
    """

    def __init__(self, module: torch.nn.Module, device: str, others: Callable[[], set[int]] = set) -> None:
        """`module` is at home now. Tensors of which `others` tells the ids are moved by somebody else."""
        self.module = module
        self.others = others
        self.execution_device = torch.device(device)
        self.ways: list[Undo] = []

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """It is called: it comes."""
        self.come()
        return args, kwargs

    def come(self) -> None:
        """Brings what is not there yet, such as the weights of a LoRA that was loaded since."""
        others = self.others()
        for module in self.module.modules():
            for table in (module._parameters, module._buffers):
                for key, tensor in table.items():
                    if tensor is not None and not self._has(tensor) and id(tensor) not in others:
                        plain = type(tensor) in (torch.nn.Parameter, torch.Tensor)
                        self.ways.append((_lent if plain else _swapped)(table, key, self.execution_device))

    def _has(self, tensor: torch.Tensor) -> bool:
        here, there = tensor.device, self.execution_device
        return here.type == there.type and there.index in (None, here.index)

    def leave(self) -> None:
        """Drops what came, and the cache that it leaves."""
        for way in self.ways:
            way()
        if self.ways:
            self.ways.clear()
            clear_device_cache()


def _lent(table: Any, key: str, device: torch.device) -> Undo:
    """Puts the data of a tensor on `device`; the value gives it what it had, or what was made of it since."""
    tensor = table[key]
    home = tensor.data
    tensor.data = home.to(device)
    version = tensor._version

    def back() -> None:
        tensor.data = home if tensor._version == version else tensor.data.to(home.device)

    return back


def _swapped(table: Any, key: str, device: torch.device) -> Undo:
    """As `_lent`, for a quantized weight, which is more than its data: another object takes its place meanwhile."""
    home = table[key]
    table[key] = lent = home.to(device)
    state = getattr(home, "quant_state", None)  # bitsandbytes moves that of the original

    def back() -> None:
        if table[key] is lent:
            table[key] = home
            if state is not None:
                state.to(home.device)

    return back


def modules_of(pipe: Any) -> dict[str, torch.nn.Module]:
    """The components of a pipeline that are modules, by name."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def lend(name: str, parts: dict[str, torch.nn.Module], device: str, others: Callable[[], set[int]] = set) -> Undo:
    """Lends component `name` of `parts` to `device`, from now on until another one is called. The value ends that.

    Tensors of which `others` tells the ids are left to somebody else.
    """
    visitor = Visitor(parts[name], device, others)
    signals = [_signal(other, visitor.leave) for key, other in parts.items() if key != name]
    add_hook_to_module(parts[name], visitor)

    def end() -> None:
        visitor.leave()
        remove_hook_from_module(parts[name])
        for remove in signals:
            remove()

    for hook in (vars(part).get("_hf_hook") for part in parts.values()):
        if isinstance(hook, Visitor):
            hook.leave()
    visitor.come()
    return end


def _signal(part: torch.nn.Module, leave: Undo) -> Undo:
    """Has `leave` called whenever `part` is; the value ends that."""
    handle = part.register_forward_pre_hook(lambda *_: leave(), prepend=True)  # before what makes room for `part`
    wrapped = [name for name in METHODS if callable(getattr(part, name, None))]
    before = {name: vars(part)[name] for name in wrapped if name in vars(part)}
    for name in wrapped:
        vars(part)[name] = _after(leave, getattr(part, name))

    def remove() -> None:
        handle.remove()
        for name in wrapped:
            vars(part).pop(name, None)
        vars(part).update(before)

    return remove


def _after(leave: Undo, method: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        leave()
        return method(*args, **kwargs)

    return called
