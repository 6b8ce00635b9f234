"""Bytes/s of device memory, of the link to the host, and of pinning."""

from collections.abc import Callable

import torch

from memplan.facts import MIB
from memplan.probes.calibrate.clock import Figure, Work, rate, timed

LARGE, USUAL = 512 * MIB, 64 * MIB
"""Bytes of what is copied: more than any cache holds, and about a large layer's weight."""


def copies(size: int = USUAL, large: int = LARGE) -> dict[str, Callable[[str, float], Figure]]:
    """What to measure for each field of Rates; each takes a device and seconds."""
    return {
        "bandwidth": lambda device, seconds: _bandwidth(device, seconds, large),
        "pinned": lambda device, seconds: _rate(_from_pinned(device, size), device, seconds, size),
        "to_device": lambda device, seconds: _rate(_from_pageable(device, size), device, seconds, size),
        "to_host": lambda device, seconds: _rate(_to_host(device, size), device, seconds, size),
        "pinning": lambda device, seconds: _rate(_pin(size), device, seconds, size),
    }


def _rate(work: Work, device: str, seconds: float, size: int) -> Figure:
    return rate(size, timed(work, device, seconds), f"{size // MIB} MiB at once")


def _bandwidth(device: str, seconds: float, size: int) -> Figure:
    """A copy reads and writes."""
    source, target = _filled(size, device), _filled(size, device)
    figure = rate(2 * size, timed(lambda: target.copy_(source), device, seconds))
    return Figure(figure.value, figure.spread, f"a copy of {size // MIB} MiB, read and written")


def _from_pinned(device: str, size: int) -> Work:
    source, target = _filled(size, "cpu").pin_memory(), _filled(size, device)
    return lambda: target.copy_(source, non_blocking=True)


def _from_pageable(device: str, size: int) -> Work:
    source = _filled(size, "cpu")
    return lambda: source.to(device)


def _to_host(device: str, size: int) -> Work:
    """Into new memory each time, as offloading does; what was copied before is freed by then."""
    source = _filled(size, device)
    return lambda: source.to("cpu")


def _pin(size: int) -> Work:
    """From the second time on PyTorch has the pinned block at hand, as with groups that are pinned anew."""
    source = _filled(size, "cpu")
    return source.pin_memory


def _filled(size: int, device: str) -> torch.Tensor:
    """Bytes that are really there: fresh zeros may be one page, many times over."""
    return torch.ones(size, dtype=torch.uint8, device=device)
