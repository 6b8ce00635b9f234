"""The GPU that torch finds where NVML cannot speak: AMD, Intel, Apple, and NVIDIA boards with unified memory."""

import platform
import subprocess
from dataclasses import replace
from importlib import import_module
from typing import Any

import psutil

from memplan.catalogue.gpu_names import resembling
from memplan.errors import BadInput
from memplan.facts import Gpu
from memplan.probes.machine.amdgpu import carved_out, link


def gpu_by_torch(index: int = 0) -> Gpu | None:
    """Torch's device of that number, by the vendor's visibility variables; None without torch or without a device.

    Imports torch and, except on Apple silicon, creates its context. `free` counts what torch itself holds as free.
    Raises BadInput for a device that is not there.
    """
    try:
        torch: Any = import_module("torch")
    except ImportError:
        return None
    if torch.cuda.is_available():
        _check_there(torch.cuda, "cuda", index)
        return _amd(torch.cuda, index) if torch.version.hip else _discrete(torch.cuda, "cuda", index)
    if torch.xpu.is_available():
        _check_there(torch.xpu, "xpu", index)
        return _intel(torch.xpu, index)
    if torch.backends.mps.is_available():
        return _apple(torch)
    return None


def _check_there(backend: Any, kind: str, index: int) -> None:
    if index >= backend.device_count():
        raise BadInput(f"there is no device {kind}:{index}: {backend.device_count()} visible here, numbered from 0")


def _discrete(backend: Any, kind: str, index: int) -> Gpu:
    properties = backend.get_device_properties(index)
    free, total = _memory(backend, properties, index)
    return replace(
        _described(properties.name, total),
        total=total,
        free=min(free + backend.memory_reserved(index), total),
        kind=kind,
        capability=(properties.major, properties.minor) if kind == "cuda" else None,
        unified=bool(getattr(properties, "is_integrated", False)),
        source="torch",
    )


def _memory(backend: Any, properties: Any, index: int) -> tuple[int, int]:
    """Free and total bytes. Intel's driver may keep the first to itself (ZES_ENABLE_SYSMAN=1 opens it): then all."""
    try:
        free, total = backend.mem_get_info(index)
    except RuntimeError:
        return properties.total_memory, properties.total_memory
    return free, total


def _amd(backend: Any, index: int) -> Gpu:
    """With the link and the pool as Linux knows them; without sysfs (Windows) as the catalogue does."""
    properties, gpu = backend.get_device_properties(index), _discrete(backend, "rocm", index)
    rate, name = link(properties)
    gpu = replace(gpu, link=rate, link_name=name) if rate else gpu
    arch = properties.gcnArchName.partition(":")[0]
    return replace(gpu, arch=arch, unified=gpu.unified and not carved_out(gpu.total))


def _intel(backend: Any, index: int) -> Gpu:
    properties = backend.get_device_properties(index)
    there = {"float64": properties.has_fp64, "float16": properties.has_fp16}
    return replace(
        _discrete(backend, "xpu", index),
        driver=properties.driver_version,
        unified=properties.is_integrated_gpu,
        lacks=tuple(dtype for dtype, computes in there.items() if not computes),
    )


def _apple(torch: Any) -> Gpu:
    """Metal's working set: what one process may hold of the memory it shares with the CPU.

    Metal has no float64; bfloat16 came with macOS 14, and torch's own float8 with a version after 2.13, so it is tried.
    """
    usable = torch.mps.recommended_max_memory()
    gpu = _described(_apple_chip(), psutil.virtual_memory().total)
    lacks: tuple[str, ...] = ("float64",) if torch.backends.mps.is_macos_or_newer(14, 0) else ("float64", "bfloat16")
    lacks += tuple(dtype for dtype in ("float8_e4m3fn", "float8_e5m2") if not _makes(torch, dtype))
    return replace(gpu, total=usable, free=usable, kind="mps", unified=True, lacks=lacks, source="torch")


def _makes(torch: Any, dtype: str) -> bool:
    try:
        torch.empty(1, dtype=getattr(torch, dtype), device="mps")
    except (TypeError, RuntimeError):
        return False
    return True


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
