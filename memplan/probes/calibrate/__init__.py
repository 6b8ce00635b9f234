"""Measures what the present machine sustains; what follows from it for plans is not decided here."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import torch

from memplan.facts import (
    ATTENTION,
    COMPUTE,
    CONTEXT,
    CONVOLUTION,
    MATMUL,
    ON_HOST,
    PINNED_BLOCK,
    WORKSPACE,
    Gpu,
    Reading,
)
from memplan.probes.calibrate import disk, hooks, limits
from memplan.probes.calibrate.clock import Figure
from memplan.probes.calibrate.compute import EIGHT_BITS, FLOATS, flops
from memplan.probes.calibrate.links import copies

FAMILIES = (MATMUL, ATTENTION, CONVOLUTION)
DEVICES = {"cuda": "cuda", "rocm": "cuda", "xpu": "xpu", "mps": "mps"}
"""What torch calls the devices of each kind."""
OVERHEAD = ("launch", "hook", "dispatch")


@dataclass(frozen=True)
class _Job:
    """One reading to be taken; `measure` is given seconds, and takes `weight` shares of them."""

    reading: Reading
    measure: Callable[[float], Figure]
    weight: int = 1


def measure(gpu: Gpu | None, seconds: float, progress: Callable[[str], None] | None = None) -> tuple[Reading, ...]:
    """Every figure that can be had of the machine at hand, whose card is `gpu`, in about `seconds` after imports.

    What a machine lacks or cannot do is a reading without a value whose note says why.
    """
    jobs, taken = _jobs(gpu), list[Reading]()
    end, shares = perf_counter() + seconds, sum(job.weight for job in jobs)
    for job in jobs:
        if progress:
            progress(f"measuring {job.reading.name}")
        taken.append(_take(job, max(end - perf_counter(), 0.0) * job.weight / shares))
        shares -= job.weight
    _give_back()
    return tuple(taken)


def _take(job: _Job, seconds: float) -> Reading:
    """One reading. What libraries and drivers cannot do they say with exceptions of many kinds."""
    try:
        figure = job.measure(seconds)
    except Exception as error:
        told = str(error).strip().splitlines() or [type(error).__name__]
        return replace(job.reading, note=told[0])
    assumed = None if figure.assumed is None else float(figure.assumed)
    return replace(job.reading, value=float(figure.value), spread=figure.spread, note=figure.note, assumed=assumed)


def _give_back() -> None:
    """What torch keeps of device memory for itself."""
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def _jobs(gpu: Gpu | None) -> Sequence[_Job]:
    """What is to be measured, on the device first: its context is weighed against an empty one."""
    device, why = _device(gpu)
    before = limits.in_use() if gpu and gpu.kind == "cuda" and device and not torch.cuda.is_initialized() else None
    on_device = list(_device_jobs(gpu, device, before)) if gpu and device else []
    if why:
        on_device = [_Job(Reading(COMPUTE, MATMUL), partial(_impossible, why))]
    folder = disk.model_folder()
    overhead = [_Job(Reading(n), partial(getattr(hooks, n), device or "cpu")) for n in OVERHEAD] if not why else []
    files = _Job(Reading("disk"), partial(disk.disk, folder), weight=3)
    return [*on_device, *overhead, files, *_compute(ON_HOST, "cpu", ())]


def _device(gpu: Gpu | None) -> tuple[str, str]:
    """What torch calls the device, and why it cannot be used: "" each where there is none, or nothing is wrong."""
    if gpu is None:
        return "", ""
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    name = DEVICES.get(gpu.kind, gpu.kind)
    if here is None or here.type != name:
        return "", f"this build of torch ({torch.__version__}) cannot use {gpu.name}"
    return name, ""


def _impossible(why: str, seconds: float) -> Figure:
    raise RuntimeError(why)


def _device_jobs(gpu: Gpu, device: str, before: int | None) -> Iterator[_Job]:
    yield from _compute(COMPUTE, device, gpu.lacks)
    for name, measured in copies().items():
        yield _Job(Reading(name), partial(measured, device))
    if gpu.kind == "cuda":
        for dtype in ("bfloat16", "float32"):
            for last in (False, True):
                form = "channels last" if last else "channels first"
                yield _Job(Reading(WORKSPACE, form, dtype), partial(_counted, partial(limits.workspace, dtype, last)))
        yield _Job(Reading(PINNED_BLOCK), partial(_counted, limits.pinned_block))
        yield _Job(Reading(CONTEXT), partial(_counted, partial(limits.context, before)))


def _counted(measure: Callable[[], Figure], seconds: float) -> Figure:
    """Bytes take no repeats."""
    return measure()


def _compute(kind: str, device: str, lacks: Sequence[str]) -> Iterator[_Job]:
    """Every family in every float dtype that there is; in 8 bits, on a device, products alone."""
    pairs = [(family, dtype) for family in FAMILIES for dtype in FLOATS if dtype not in lacks]
    pairs += [(MATMUL, dtype) for dtype in EIGHT_BITS if kind == COMPUTE]
    for family, dtype in pairs:
        yield _Job(Reading(kind, family, dtype), partial(flops, family, dtype, device))
