"""The NVIDIA GPU that CUDA would call by a number, as the driver describes it: no torch, no CUDA context."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import takewhile
from types import ModuleType
from typing import Any

from memplan.catalogue.gpu_names import resembling
from memplan.catalogue.gpus import pcie_name, pcie_rate
from memplan.errors import BadInput
from memplan.facts import Gpu

_NO_INSTANCE = "no such MIG instance; nvidia-smi -L lists those there are"


class NvmlMissing(Exception):
    """NVML is not installed, finds no NVIDIA GPU, or fails while it is asked."""


@dataclass(frozen=True)
class _Device:
    """NVML handles of what CUDA computes on and of the board it sits on: the same, except for a MIG instance.

    `index` is CUDA's number for it.
    """

    handle: Any
    board: Any
    index: int = 0


def nvml_gpu(environment: Mapping[str, str], index: int = 0) -> Gpu | None:
    """The GPU of that number, by CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER in `environment`; None if they hide all.

    `free` counts what this process itself holds as free. Raises NvmlMissing, and BadInput for a device that is not
    there.
    """
    gpu: Gpu | None = _ask_visible(environment, index, _gpu)
    return gpu


def nvml_used(environment: Mapping[str, str]) -> tuple[int, int]:
    """Bytes in use on that GPU: by all, and by this process, 0 where the driver does not tell. Raises as `nvml_gpu`."""
    used: tuple[int, int] | None = _ask_visible(environment, 0, _used)
    return used or (0, 0)


def _ask_visible(environment: Mapping[str, str], index: int, question: Callable[[ModuleType, "_Device"], Any]) -> Any:
    try:
        nvml = import_module("pynvml")
    except ImportError as error:
        raise NvmlMissing(str(error)) from error
    try:
        nvml.nvmlInit()
        try:
            device = _visible(nvml, environment, index)
            return question(nvml, replace(device, index=index)) if device else None
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        raise NvmlMissing(str(error)) from error


# ---- which device ----------------------------------------------------------------------------------------------------
def _visible(nvml: ModuleType, environment: Mapping[str, str], index: int) -> _Device | None:
    boards = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    if not boards:
        raise NvmlMissing("NVML finds no NVIDIA GPU")
    if environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":  # CUDA's own order puts the fastest first
        boards.sort(key=lambda board: -_speed(nvml, board))
    listed = environment.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(len(boards))))).split(",")
    shown = list(takewhile(lambda name: name and not name.startswith("-"), map(str.strip, listed)))
    if not shown:
        return None
    if index >= len(shown):
        raise BadInput(f"there is no device cuda:{index}: {len(shown)} visible here, numbered from 0")
    wanted = shown[index]
    if wanted.startswith("MIG-"):
        return _numbered(nvml, boards, wanted) if "/" in wanted else _instance(nvml, wanted)
    return _whole(nvml, _board(nvml, boards, wanted))


def _board(nvml: ModuleType, boards: list[Any], wanted: str) -> Any:
    """The board of that index, or whose UUID begins so."""
    if wanted.isdigit() and int(wanted) < len(boards):
        return boards[int(wanted)]
    for board in boards:
        if wanted.startswith("GPU-") and _text(nvml.nvmlDeviceGetUUID(board)).startswith(wanted):
            return board
    raise _no_such(wanted, f"{len(boards)} GPU{'s' * (len(boards) > 1)}, numbered from 0")


def _instance(nvml: ModuleType, wanted: str) -> _Device:
    instance = _ask(nvml, nvml.nvmlDeviceGetHandleByUUID, wanted)
    if instance is None:
        raise _no_such(wanted, _NO_INSTANCE)
    return _Device(instance, nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance))


def _numbered(nvml: ModuleType, boards: list[Any], wanted: str) -> _Device:
    """The instance of the form that drivers before R470 use: MIG-<UUID of the board>/<GPU instance>/<its part>."""
    uuid, *numbers = wanted.removeprefix("MIG-").split("/")
    for board in boards:
        for instance in _instances(nvml, board) if _text(nvml.nvmlDeviceGetUUID(board)) == uuid else ():
            own = nvml.nvmlDeviceGetGpuInstanceId(instance), nvml.nvmlDeviceGetComputeInstanceId(instance)
            if numbers == [str(number) for number in own]:
                return _Device(instance, board)
    raise _no_such(wanted, _NO_INSTANCE)


def _whole(nvml: ModuleType, board: Any) -> _Device | None:
    """The board; its first instance where it is split by MIG, or None where it is split into none."""
    if (_ask(nvml, nvml.nvmlDeviceGetMigMode, board) or [0])[0] == 0:
        return _Device(board, board)
    return next((_Device(instance, board) for instance in _instances(nvml, board)), None)


def _instances(nvml: ModuleType, board: Any) -> Iterator[Any]:
    """The MIG instances of a board; their indices may have gaps."""
    for i in range(_ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, board) or 0):
        if instance := _ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, board, i):
            yield instance


def _no_such(wanted: str, there: str) -> BadInput:
    return BadInput(
        f"CUDA_VISIBLE_DEVICES names {wanted}, but this machine has {there}. Correct it or unset it; "
        'to plan for a card that is not here, name it: --gpu "RTX 4090".'
    )


def _speed(nvml: ModuleType, board: Any) -> int:
    """Cores x clock; 0 where the driver does not tell."""
    cores = _ask(nvml, nvml.nvmlDeviceGetNumGpuCores, board)
    clock = _ask(nvml, nvml.nvmlDeviceGetMaxClockInfo, board, nvml.NVML_CLOCK_SM)
    return (cores or 0) * (clock or 0)


# ---- what it is ------------------------------------------------------------------------------------------------------
def _gpu(nvml: ModuleType, device: _Device) -> Gpu:
    name = _text(nvml.nvmlDeviceGetName(device.handle))
    memory = nvml.nvmlDeviceGetMemoryInfo(device.handle)
    whole = nvml.nvmlDeviceGetMemoryInfo(device.board).total
    card = resembling(name.partition(" MIG ")[0], whole)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(device.board)
    link, link_name = _link(nvml, device.board)
    compute = _compute_share(nvml, device)
    bandwidth = card.bandwidth if card else _bandwidth(nvml, device.board)
    return Gpu(
        name=name,
        total=memory.total,
        free=min(memory.free + _own(nvml, device), memory.total),
        capability=(major, minor),
        bandwidth=bandwidth * memory.total / whole if bandwidth else None,
        rates=tuple((dtype, rate * compute) for dtype, rate in card.rates) if card else (),
        link=link,
        link_name=link_name,
        driver=_text(nvml.nvmlSystemGetDriverVersion()),
        source="nvml",
        unified=card.unified if card else False,
    )


def _compute_share(nvml: ModuleType, device: _Device) -> float:
    """The part of the board's processors that a MIG instance has; 1 for a whole board."""
    if device.handle is device.board:
        return 1.0
    slices = nvml.nvmlDeviceGetAttributes(device.handle).computeInstanceSliceCount
    return float(slices / nvml.nvmlDeviceGetMaxMigDeviceCount(device.board))


def _bandwidth(nvml: ModuleType, board: Any) -> float | None:
    """Bytes/s from the memory clock (MHz, two transfers a cycle) and the width of the bus (bits)."""
    clock = _ask(nvml, nvml.nvmlDeviceGetMaxClockInfo, board, nvml.NVML_CLOCK_MEM)
    width = _ask(nvml, nvml.nvmlDeviceGetMemoryBusWidth, board)
    return clock * 1e6 * 2 * width / 8 if clock and width else None


def _link(nvml: ModuleType, board: Any) -> tuple[float | None, str]:
    """The link to the host. An idle GPU lowers its generation, so the highest counts; its width is what it is."""
    generation = _ask(nvml, nvml.nvmlDeviceGetMaxPcieLinkGeneration, board)
    questions = (nvml.nvmlDeviceGetMaxPcieLinkWidth, nvml.nvmlDeviceGetCurrPcieLinkWidth)
    lanes = min((width for question in questions if (width := _ask(nvml, question, board))), default=0)
    if not generation or not lanes:
        return None, ""
    return pcie_rate(generation, lanes), pcie_name(generation, lanes)


def _own(nvml: ModuleType, device: _Device) -> int:
    """Bytes that this process holds; where the driver does not tell (a container, Windows), torch's share of them."""
    torch: Any = sys.modules.get("torch")
    return _told(nvml, device.handle) or (
        torch.cuda.memory_reserved(device.index) if torch and torch.cuda.is_initialized() else 0
    )


def _told(nvml: ModuleType, handle: Any) -> int:
    processes = _ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    return sum(p.usedGpuMemory or 0 for p in processes if p.pid == os.getpid())


def _used(nvml: ModuleType, device: _Device) -> tuple[int, int]:
    memory = nvml.nvmlDeviceGetMemoryInfo(device.handle)
    return memory.total - memory.free, _told(nvml, device.handle)


# ---- asking ----------------------------------------------------------------------------------------------------------
def _ask(nvml: ModuleType, question: Callable[..., Any], *arguments: Any) -> Any:
    """The driver's answer, or None where this GPU or driver has none."""
    try:
        return question(*arguments)
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
