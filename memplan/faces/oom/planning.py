"""The cheapest plan with which a failed run would have fitted."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from memplan import planner
from memplan.errors import NoGpu, NothingFits
from memplan.faces import measuring
from memplan.faces.oom.scene import Scene
from memplan.faces.target import HERE, Target, machine, of_kind
from memplan.facts import GIB, Facts
from memplan.facts.units import amount, mib
from memplan.oom import Allocation
from memplan.oom.place import LOADING
from memplan.planner import Plan
from memplan.registry import strategies

CHEAPEST = "quality"
"""The pick that gives up the least: of the least loss that fits, the fastest."""
PATIENCE = 120.0
"""Seconds after which no further component is looked at."""
KINDS = ("cuda", "rocm", "xpu", "mps")
"""Devices whose kernels and limits memplan tells apart."""
Progress = Callable[[str], None]


class TookTooLong(Exception):
    """Planning was given up."""


@dataclass(frozen=True)
class Fitting:
    """A plan, and what is said of it. `failed` are the predicted bytes of the run that failed, where memplan is off."""

    plan: Plan
    failed: int | None = None


def fitting(scene: Scene, failed: Allocation, patience: float = PATIENCE) -> Fitting:
    """The cheapest plan that fits what this process could have had, and takes less than the run that failed.

    Raises MemplanError where there is none, TookTooLong after `patience` seconds, and whatever a dry run raises.
    """
    source = scene.pipe if scene.pipe is not None else scene.source
    measured = _facts(source, scene, failed, _until(time.monotonic() + patience, patience))
    was = _failed_run(measured, scene, failed)
    if was is not None:
        measured = _below(measured, was, failed)
    found = planner.recommend(measured, strategies())
    pick = found.pick(CHEAPEST)
    if pick is None:
        raise NothingFits(_none(found.nearest, was, failed))
    return Fitting(pick, was)


def _none(nearest: Plan, was: int | None, failed: Allocation) -> str:
    """Why there is no plan: what the nearest needs, or that none takes enough less than was predicted."""
    if was is None:
        return f"no plan fits; the nearest, {nearest}, needs {', and '.join(map(str, nearest.shortages))}"
    less, least = failed.missing or failed.asked or 1, nearest.bill.peak.memory.required
    return (
        f"memplan predicts {amount(was)} for the run that failed, by which it would have fitted, and no plan takes "
        f"{mib(less)} MiB less; the nearest, {nearest}, takes {amount(least)}"
    )


def _until(end: float, patience: float) -> Progress:
    """What is told of progress, and gives up between two components once the time is over."""

    def said(message: str) -> None:
        if time.monotonic() > end:
            raise TookTooLong(f"planning was given up after {patience:.0f} s, at {message}")

    return said


def _facts(source: Any, scene: Scene, failed: Allocation, progress: Progress) -> Facts:
    """What is measured of the pipeline and its call, on the device that ran out as the error describes it."""
    target = HERE if failed.index is None else Target(index=failed.index)
    if machine(HERE).gpu is None:
        if failed.usable is None or not failed.on_device:
            raise NoGpu("No GPU is visible here, and the error has no figures of one.")
        target = Target(vram=max(failed.usable, 1) / GIB)
    found = measuring.facts(source, scene.call, target=target, dtype=scene.dtype, progress=progress)
    gpu = found.machine.gpu
    if gpu is None or failed.usable is None or not failed.on_device:
        return found
    gpu = replace(gpu, total=failed.capacity or gpu.total, free=failed.usable)
    found = replace(found, machine=replace(found.machine, gpu=gpu))
    return of_kind(failed.kind, found) if failed.kind in KINDS else found


def _failed_run(measured: Facts, scene: Scene, failed: Allocation) -> int | None:
    """Bytes that memplan predicts for the run that failed, where by them it would have fitted: they are too few.

    Only of a pipeline as it was loaded can that be said: without a plan, and with everything on the device.
    """
    plan = planner.draw(measured, ())
    if not (failed.on_device and plan.fits and _as_loaded(scene)):
        return None
    return plan.bill.peak.memory.required


def _as_loaded(scene: Scene) -> bool:
    from memplan.applier import applied, check_free
    from memplan.errors import BadInput

    if scene.place.phase == LOADING or scene.pipe is None:
        return True
    try:
        check_free(scene.pipe)
    except BadInput:
        return False
    return applied(scene.pipe) is None


def _below(measured: Facts, was: int, failed: Allocation) -> Facts:
    """The same facts with device memory limited to less than the failed run's, by what was missing or asked for."""
    less, here = max(was - (failed.missing or failed.asked or 1), 1), measured.machine
    most = min(less, here.vram) + here.learned.margin  # which the machine takes off a limit
    return replace(measured, machine=replace(here, limits=replace(here.limits, vram=most)))
