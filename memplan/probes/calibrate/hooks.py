"""Seconds of the host: to issue an op, and in the hooks of diffusers and accelerate to move a tensor."""

from collections.abc import Callable

import torch
from accelerate import cpu_offload
from diffusers.hooks import apply_group_offloading
from torch import nn

from memplan.probes.calibrate.clock import Figure, Timing, timed_on_host

BLOCKS, WIDTH = 24, 16
OPS, TENSORS = 4, 4
"""Of each block: two linear layers with biases, an activation and a sum; weights and biases."""
NOT_COPIED = "hooks alone: on the CPU nothing is copied"


class _Block(nn.Module):
    """As small as can be, so that the device is always done before the host."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.out(nn.functional.gelu(self.into(x)))


class _Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_Block() for _ in range(BLOCKS)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def launch(device: str, seconds: float) -> Figure:
    """Seconds in which the host issues one op, its module's share of Python included."""
    timing = _forward(_Blocks().to(device), device, seconds)
    return _each(timing, OPS * BLOCKS)


def hook(device: str, seconds: float) -> Figure:
    """Seconds that group offload of single layers takes per tensor, with a stream where the device has them."""
    return _beside(_group_offload, device, seconds)


def dispatch(device: str, seconds: float) -> Figure:
    """Seconds that sequential offload takes per tensor."""
    return _beside(_sequential_offload, device, seconds)


def _beside(offload: Callable[[nn.Module, str], nn.Module], device: str, seconds: float) -> Figure:
    """What the hooks add to the same forward without them."""
    plain = _forward(_Blocks().to(device), device, seconds / 4)
    hooked = _forward(offload(_Blocks(), device), device, seconds * 3 / 4)
    added = Timing(hooked.median - plain.median, hooked.least - plain.least)
    if added.least <= 0 or added.median <= 0:
        raise RuntimeError("the forward with hooks took no longer than without: the machine is too busy")
    return _each(added, TENSORS * BLOCKS, NOT_COPIED if device == "cpu" else "")


def _each(timing: Timing, number: int, note: str = "") -> Figure:
    return Figure(timing.median / number, max(timing.median / timing.least - 1, 0.0), note)


def _forward(module: nn.Module, device: str, seconds: float) -> Timing:
    """On one thread, as ops are issued: threads that wait for each other at tiny ops would be what is measured."""
    x, threads = torch.ones(1, WIDTH, device=device), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return timed_on_host(lambda: module(x), device, seconds)
    finally:
        torch.set_num_threads(threads)


def _group_offload(module: nn.Module, device: str) -> nn.Module:
    streams = device != "cpu" and hasattr(torch.get_device_module(device), "Stream")
    apply_group_offloading(
        module, torch.device(device), torch.device("cpu"), offload_type="leaf_level", use_stream=streams
    )
    return module


def _sequential_offload(module: nn.Module, device: str) -> nn.Module:
    return cpu_offload(module, torch.device(device))
