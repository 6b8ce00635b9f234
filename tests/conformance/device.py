"""A second device on the CPU, real enough for the libraries' own hooks.

A storage is on the device or it is not; transfers copy it, ops that mix both fail as they do with CUDA, and streams are
always done. Copies of weights are followed, so that what is held of each weight can be counted to the byte.
"""

import weakref
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import safetensors.torch
import torch
from torch.cuda import _pin_memory_utils
from torch.overrides import TorchFunctionMode

from memplan.probes.trace.operands import tensors_in

Slots: Any = import_module("memplan.strategies.streaming.slots").Slots
CPU, DEVICE = torch.device("cpu"), torch.device("cuda:0")
PLACES = (str, torch.device)
MIXING = {
    torch.Tensor.copy_,
    torch.Tensor.__setitem__,
    torch.Tensor.__getitem__,
    torch._has_compatible_shallow_copy_type,
}
"""Ops that take tensors of both."""
PIN = torch.Tensor.pin_memory
READS = {torch.Tensor.is_pinned, torch.Tensor.untyped_storage, torch.Tensor.data_ptr, torch.Tensor.record_stream}
TO = {torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda}


@dataclass(eq=False)
class Copy:
    """One storage that the device knows: where it is, and which weight it holds."""

    storage: weakref.ref[Any]
    nbytes: int
    on_device: bool
    weight: tuple[str, str] | None
    pinned: bool = False


class Device(TorchFunctionMode):
    """Runs everything on the CPU and remembers what would be on the device. `on_op` is told of every op there.

    `held` are the bytes of weights on the device, by component.
    """

    def __init__(self, pipe: Any) -> None:
        super().__init__()
        self.copies: dict[int, Copy] = {}
        self.held: dict[str, int] = {}
        self.on_op: Callable[[], None] = lambda: None
        for component, part in pipe.components.items():
            if isinstance(part, torch.nn.Module):
                for name, weight in (*part.named_parameters(), *part.named_buffers()):
                    if weight.untyped_storage()._cdata not in self.copies:
                        self.enter(weight, False, (component, name))

    # -- what is where ---------------------------------------------------------------------------------------------
    def enter(self, tensor: torch.Tensor, on_device: bool, weight: Any = None, pinned: bool = False) -> torch.Tensor:
        """Enter the storage of `tensor`."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        reference = weakref.ref(storage, lambda _: self._count(self.copies.pop(key), -1))
        self._count(copy := Copy(reference, storage.nbytes(), on_device, weight, pinned), 1)
        self.copies[key] = copy
        return tensor

    def _count(self, copy: Copy, sign: int) -> None:
        if copy.on_device and copy.weight:
            component = copy.weight[0]
            self.held[component] = self.held.get(component, 0) + sign * copy.nbytes

    def of(self, tensor: torch.Tensor) -> Copy | None:
        """What is known of the storage of `tensor`."""
        return None if tensor.device.type == "meta" else self.copies.get(tensor.untyped_storage()._cdata)

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` is on the device."""
        copy = self.of(tensor)
        return copy is not None and copy.on_device

    # -- what ops do -----------------------------------------------------------------------------------------------
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__"):
            return self._attribute(func, args)
        if func in TO:
            return self._to(func, *args, **kwargs)
        if func is torch.Tensor.pin_memory:
            origin = self.of(args[0])
            return self.enter(args[0].clone(), False, origin.weight if origin else None, pinned=True)
        if func is torch.Tensor.is_pinned:
            return (copy := self.of(args[0])) is not None and copy.pinned
        return self._compute(func, args, kwargs)

    def _attribute(self, func: Any, args: Any) -> Any:
        owner = func.__self__
        if owner is torch.Tensor.device and args[0].device.type != "meta":
            return DEVICE if self.has(args[0]) else CPU
        if owner in (torch.Tensor.is_cuda, torch.Tensor.is_cpu):
            return self.has(args[0]) is (owner is torch.Tensor.is_cuda)
        return func(*args)

    def _to(self, func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if func is not torch.Tensor.to:
            args, kwargs = (func.__name__,), {}
        place = kwargs.pop("device", None)
        if args and isinstance(args[0], torch.Tensor):
            place, args = (DEVICE if self.has(args[0]) else CPU), (args[0].dtype, *args[1:])
        elif args and isinstance(args[0], str | torch.device | None):
            place, args = args[0], args[1:]
        place = torch.device(place or (DEVICE if self.has(tensor) else tensor.device))
        if place.type == "meta":
            return tensor.to("meta", *args, **kwargs)
        made = tensor.to(CPU, *args, **kwargs)
        was, now = self.has(tensor), place.type != "cpu"
        same = made.untyped_storage()._cdata == tensor.untyped_storage()._cdata
        if now == was:
            return made if same or not now else self.enter(made, now)
        origin = self.of(tensor)
        moved = made.clone() if same else made
        return self.enter(moved, now, origin.weight if origin else None)

    def _compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        tensors = tensors_in((*args, *kwargs.values()))
        here = any(self.has(tensor) for tensor in tensors)
        if here and func not in MIXING and any(t.dim() and not self.has(t) for t in tensors):
            _refuse(func, tensors, self)
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type != "meta":
            here = torch.device(kwargs["device"]).type != "cpu"
            kwargs["device"] = "cpu"
        known = {t.untyped_storage()._cdata for t in tensors if t.device.type != "meta"}
        result = func(*args, **kwargs)
        for tensor in tensors_in((result,)) if here else ():
            if tensor.device.type != "meta" and tensor.untyped_storage()._cdata not in known:
                self.enter(tensor, True)
                self.on_op()
        return result


def _refuse(func: Any, tensors: list[torch.Tensor], device: Device) -> NoReturn:
    table = ", ".join(f"{tuple(t.shape)} on {'the device' if device.has(t) else 'the host'}" for t in tensors)
    raise RuntimeError(f"{func.__name__}: expected all tensors on one device, found {table}")


def scarce(pipe: Any, transfers: int = 5) -> Device:
    """A device whose memory ends after so many transfers to it."""
    device, left = Device(pipe), iter(range(transfers))
    to = device._to

    def _to(func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        made = to(func, tensor, *args, **kwargs)
        if device.has(made) and not device.has(tensor) and next(left, None) is None:
            raise torch.OutOfMemoryError
        return made

    vars(device)["_to"] = _to
    return device


class Stream:
    """A stream on which all work is done."""

    def __init__(self, device: Any = None) -> None:
        """Of any device."""

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def record_event(self) -> None:
        """All is done: there is nothing to know it by."""

    def wait_event(self, event: None) -> None:
        """Nothing to wait for."""

    def wait_stream(self, stream: Any) -> None:
        """Nothing to wait for."""


@contextmanager
def files(device: Device) -> Generator[None]:
    """Weights can be read from files onto `device`: those of the component after which their folder is named."""
    read = safetensors.torch.load_file

    def load_file(path: str, device: Any = CPU) -> dict[str, torch.Tensor]:
        component = Path(path).parent.name.rpartition("-")[0]
        there = torch.device(device).type != "cpu"
        return {key: known.enter(tensor.clone(), there, (component, key)) for key, tensor in read(path).items()}

    known = device
    with patch.object(safetensors.torch, "load_file", load_file):
        yield


@contextmanager
def slots(device: Device) -> Generator[None]:
    """Slots are on `device`, as weights of their component, and host memory can be pinned where it is."""

    def room(own: Any, nbytes: int) -> torch.Tensor:
        return device.enter(torch.empty(nbytes, dtype=torch.uint8), True, (own.name, "slot"))

    with ExitStack() as patches:
        patches.enter_context(patch.object(Slots, "room", room))
        for name in ("pin_memory", "unpin_memory"):
            patches.enter_context(patch.object(_pin_memory_utils, name, lambda *_: None))
        yield


@contextmanager
def streams() -> Generator[None]:
    """`torch.cuda` has streams, whatever this machine has."""
    fakes = {"Stream": Stream, "stream": lambda _: nullcontext(), "current_stream": lambda _=None: Stream()}
    with ExitStack() as patches:
        for name, fake in fakes.items():
            patches.enter_context(patch.object(torch.cuda, name, fake))
        patches.enter_context(patch.object(torch.Tensor, "record_stream", lambda tensor, stream: None))
        yield
