"""The machine a plan is made for: the one at hand, or the one the user names."""

import math
import os
from dataclasses import replace

from memplan.catalogue.gpu_names import find_card, namesakes
from memplan.catalogue.rates import rates_of
from memplan.errors import BadInput
from memplan.facts import GIB, Gpu, Host, Machine
from memplan.probes.machine.host import probe_host
from memplan.probes.machine.installed import installed
from memplan.probes.machine.nvml import NvmlMissing, nvml_gpu
from memplan.probes.machine.torch_gpu import gpu_by_torch


def probe_machine(
    gpu: str | None = None,
    vram: float | None = None,
    ram: float | None = None,
    reserve: float = 0.0,
    index: int = 0,
) -> Machine:
    """The machine at hand, changed by what the user says; all sizes in GiB.

    `gpu` names a card of the catalogue in place of the one that is here, `vram` gives its memory (or, alone, is all
    that is known of it), `ram` replaces the host's memory. `reserve` of the device memory is kept free for others.
    Of several devices here it is the one that torch calls by the number `index`.
    A machine without a GPU has `gpu=None`. Raises BadInput for an unknown or ambiguous card, for a size that is no
    positive number, and for a reserve that leaves nothing.
    """
    for option, size in (("vram", vram), ("ram", ram)):
        if size is not None and not (math.isfinite(size) and size > 0):
            raise BadInput(f"{option} is {size:g} GiB, which is no memory. Give GiB above 0, for example 12.")
    if not (math.isfinite(reserve) and reserve >= 0):
        raise BadInput(f"reserve is {reserve:g} GiB, which cannot be kept free. Give 0 or more, for example 1.5.")
    device = _device(gpu, vram, ram, index)
    _check_reserve(reserve, device)
    return Machine(device, _host(ram, device), int(reserve * GIB), installed(), rates_of(device))


def probe_gpu(index: int = 0) -> Gpu | None:
    """The GPU that torch would call by that number: from NVML, else from torch; None where there is none.

    Raises BadInput where there are others and not that one.
    """
    try:
        return nvml_gpu(os.environ, index)
    except NvmlMissing:
        return gpu_by_torch(index)


# ---- what the user says ----------------------------------------------------------------------------------------------
def _device(name: str | None, vram: float | None, ram: float | None, index: int) -> Gpu | None:
    """The card the user names or gives the memory of, else the one that is here."""
    if name is not None:
        return _card(name, vram, ram)
    if vram is None:
        return probe_gpu(index)
    return Gpu(f"{vram:g} GiB card", total=int(vram * GIB), free=int(vram * GIB))


def _card(name: str, vram: float | None, ram: float | None) -> Gpu:
    """The card of the catalogue, with the memory the user gives; of a unified one that is also the host's."""
    gpu = replace(find_card(name, vram, ram).gpu(), namesakes=namesakes(name, vram, ram))
    said = ram if gpu.unified and vram is None else vram
    if said is None:
        return gpu
    total = int(said * GIB)
    return replace(gpu, total=total, free=total * gpu.free // gpu.total, resized=True)


def _host(ram: float | None, gpu: Gpu | None) -> Host:
    if ram is not None:
        return Host(int(ram * GIB), int(ram * GIB))
    if gpu and gpu.unified and gpu.source == "catalogue":
        return Host(gpu.total, gpu.total, source="catalogue")
    return probe_host(gpu.kind if gpu else "")


def _check_reserve(reserve: float, gpu: Gpu | None) -> None:
    if gpu and reserve * GIB >= gpu.free > 0:
        raise BadInput(
            f"a reserve of {reserve:g} GiB leaves nothing of the {gpu.free / GIB:.2f} GiB that {gpu.name} has free. "
            f"Reserve less than {gpu.free / GIB:.2f} GiB."
        )
