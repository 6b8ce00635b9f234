"""The GPU that torch finds where NVML cannot speak: AMD, Intel, Apple, and NVIDIA boards with unified memory."""

import platform
import subprocess
from dataclasses import replace
from importlib import import_module
from typing import Any

import psutil

from memplan.catalogue.gpu_names import resembling
from memplan.facts import Gpu


def torch_gpu() -> Gpu | None:
    """Torch's device 0, which honours the vendor's visibility variables; None without torch or without a device.

    Imports torch and, except on Apple silicon, creates its context. `free` counts what torch itself holds as free.
    """
    try:
        torch: Any = import_module("torch")
    except ImportError:
        return None
    if torch.cuda.is_available():
        return _discrete(torch.cuda, "rocm" if torch.version.hip else "cuda")
    if torch.xpu.is_available():
        return _discrete(torch.xpu, "xpu")
    if torch.backends.mps.is_available():
        return _apple(torch.mps)
    return None


def _discrete(backend: Any, kind: str) -> Gpu:
    properties = backend.get_device_properties(0)
    free, total = backend.mem_get_info(0)
    return replace(
        _described(properties.name, total),
        total=total,
        free=min(free + backend.memory_reserved(0), total),
        kind=kind,
        capability=(properties.major, properties.minor) if kind == "cuda" else None,
        unified=bool(getattr(properties, "is_integrated", False)),
        source="torch",
    )


def _apple(backend: Any) -> Gpu:
    """Metal's working set: what one process may hold of the memory it shares with the CPU."""
    usable = backend.recommended_max_memory()
    gpu = _described(_apple_chip(), psutil.virtual_memory().total)
    return replace(gpu, total=usable, free=usable, kind="mps", unified=True, source="torch")


def _described(name: str, total: int) -> Gpu:
    """The catalogue's figures under the name that the driver gives, or the name alone."""
    card = resembling(name, total)
    return replace(card.gpu(), name=name) if card else Gpu(name, total, total)


def _apple_chip() -> str:
    """Such as "Apple M2 Max"."""
    if platform.system() != "Darwin":
        return "Apple GPU"
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "Apple GPU"
