"""Hooks that lend a whole component to the device while it is called, and keep its weights at home."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from accelerate.utils.memory import clear_device_cache

from memplan.strategy import Undo

from .contents import total
from .way_back import done

METHODS = ("encode", "decode")
"""Methods by which diffusers calls a VAE, beside its forward."""


class Visitor(ModelHook):  # type: ignore[misc]
    """Brings a module to `execution_device` when it is called; `leave` gives each weight what it had at home.

    What was changed on the device meanwhile goes home as it is: of each weight a sum over all its bytes is taken when
    it has come and before it leaves, as peft and others write behind the count of writes. accelerate calls it;
    diffusers reads the device.
    """

    def __init__(self, module: torch.nn.Module, device: str, others: Callable[[], set[int]] = set) -> None:
        """`module` is at home now. Tensors of which `others` tells the ids are moved by somebody else."""
        self.module = module
        self.others = others
        self.execution_device = torch.device(device)
        self.lent: list[Lent] = []
        self.sums: list[torch.Tensor] = []
        self.ways: list[Undo] = []

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """It is called: it comes."""
        self.come()
        return args, kwargs

    def come(self) -> None:
        """Brings what is not there yet, such as the weights of a LoRA that was loaded since."""
        for table, key in [*self._away()]:
            tensor = table[key]
            if type(tensor) not in (torch.nn.Parameter, torch.Tensor):
                self.ways.append(_swapped(table, key, self.execution_device))
            elif not self._has(tensor):  # by another name
                home, tensor.data = tensor.data, tensor.data.to(self.execution_device)
                self.lent.append(Lent(tensor, home))
        fresh = self.lent[sum(sums.shape[1] for sums in self.sums) :]
        if fresh:
            sums = torch.zeros(2, len(fresh), dtype=torch.int64, device=self.execution_device)
            _sum_up(fresh, sums[0])
            self.sums.append(sums)

    def _away(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Where the tensors stand that should come."""
        others = self.others()
        for module in self.module.modules():
            for table in (module._parameters, module._buffers):
                for key, tensor in table.items():
                    if tensor is not None and not self._has(tensor) and id(tensor) not in others:
                        yield table, key

    def _has(self, tensor: torch.Tensor) -> bool:
        here, there = tensor.device, self.execution_device
        return here.type == there.type and there.index in (None, here.index)

    def leave(self) -> None:
        """Drops what came, and the cache that it leaves."""
        changed = _changed(self.lent, self.sums)
        for number, (tensor, home) in enumerate(self.lent):
            tensor.data = tensor.data.to(home.device) if number in changed else home
        for way in self.ways:
            way()
        if self.lent or self.ways:
            self.lent.clear()
            self.sums.clear()
            self.ways.clear()
            clear_device_cache()


class Lent(NamedTuple):
    """A tensor whose data are on the device, and those at home."""

    tensor: torch.Tensor
    home: torch.Tensor


def _sum_up(lent: Sequence[Lent], sums: torch.Tensor) -> None:
    """Writes of each the sum over its bytes, on the device."""
    for one, into in zip(lent, sums, strict=True):
        total(one.tensor, into)


def _changed(lent: Sequence[Lent], arrived: Sequence[torch.Tensor]) -> set[int]:
    """The numbers of those that hold something else than when they came: the last did not where memory ended.

    `arrived` have two rows: the sums then, and room for those of now. One transfer for each time that some came.
    """
    changed, first = set[int](), 0
    for sums in arrived:
        stayed = lent[first : first + sums.shape[1]]
        _sum_up(stayed, sums[1])
        for number, (one, then, now) in enumerate(zip(stayed, *sums.cpu().tolist(), strict=True), first):
            if then != now or (one.tensor.dtype, one.tensor.shape) != (one.home.dtype, one.home.shape):
                changed.add(number)
        first += len(stayed)
    return changed


def _swapped(table: Any, key: str, device: torch.device) -> Undo:
    """Puts a quantized weight on `device`, which is more than its data: another object takes its place meanwhile.

    The value ends that. An object that was put in its place meanwhile, as peft does to fuse, goes home.
    """
    home = table[key]
    table[key] = lent = home.to(device)
    state = getattr(home, "quant_state", None)  # bitsandbytes moves that of the original

    def back() -> None:
        if table.get(key) is lent:
            table[key] = home
            if state is not None:
                state.to(home.device)
        elif table.get(key) is not None:
            table[key] = table[key].to(home.device)

    return back


def modules_of(pipe: Any) -> dict[str, torch.nn.Module]:
    """The components of a pipeline that are modules, by name."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def lend(name: str, parts: dict[str, torch.nn.Module], device: str, others: Callable[[], set[int]] = set) -> Undo:
    """Lends component `name` of `parts` to `device`, from now on until another one is called. The value ends that.

    Tensors of which `others` tells the ids are left to somebody else. Where it cannot come, nothing is left behind.
    """
    visitor = Visitor(parts[name], device, others)
    signals = [_signal(other, visitor.leave) for key, other in parts.items() if key != name]
    add_hook_to_module(parts[name], visitor)

    def end() -> None:
        visitor.leave()
        remove_hook_from_module(parts[name])
        for remove in signals:
            remove()

    def arrive() -> None:
        for hook in (vars(part).get("_hf_hook") for part in parts.values()):
            if isinstance(hook, Visitor):
                hook.leave()
        visitor.come()

    return done(arrive, end)


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
