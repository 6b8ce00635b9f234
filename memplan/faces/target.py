"""The machine that a face plans for: named, limited, or measured here."""

from dataclasses import dataclass, replace
from typing import Any

from memplan.errors import BadInput
from memplan.faces.calibrated import with_measured
from memplan.faces.limits import read_limits
from memplan.facts import Facts, Machine
from memplan.probes.machine import probe_machine


@dataclass(frozen=True)
class Target:
    """The machine to plan for. `gpu` is a name from the catalogue, the sizes are GiB; what is None is measured here.

    `limit` says what of it a plan may take, and how long and how lossy it may be: read_limits() has the words. Of
    several GPUs here `index` is the number by which torch calls the one to plan for, as in "cuda:1".
    """

    gpu: str | None = None
    vram: float | None = None
    ram: float | None = None
    reserve: float = 0.0
    limit: str = ""
    index: int = 0

    @property
    def is_here(self) -> bool:
        """Whether the card is this machine's own, with its own memory."""
        return self.gpu is None and self.vram is None


HERE = Target()


def machine(target: Target = HERE) -> Machine:
    """The machine that `target` names, the rest measured; where it names no card, with the rates of a calibration.

    Raises NoGpu for an unknown card, and BadInput for a size below zero, an unknown limit and for what is no Target.
    """
    given: Any = target  # callers without type checkers hand over names
    if not isinstance(given, Target):
        name = given if isinstance(given, str) else "RTX 4070"
        raise BadInput(f'target is {given!r}: write target=memplan.Target(gpu="{name}")')
    limits = read_limits(target.limit)
    here = probe_machine(target.gpu, target.vram, target.ram, target.reserve, target.index)
    here = with_measured(here) if target.is_here else here
    return replace(here, limits=limits)


def of_kind(device: str, measured: Facts) -> Facts:
    """The same facts on a device of the kind that torch names."""
    kind, gpu = device.partition(":")[0], measured.machine.gpu
    if gpu is None or kind in (gpu.kind, "cuda" if gpu.kind == "rocm" else ""):
        return measured
    return replace(measured, machine=replace(measured.machine, gpu=replace(gpu, kind=kind)))


def numbered(target: Target, device: str) -> Target:
    """The target, on the device of this machine that `device` numbers, as "cuda:1" does."""
    number = device.partition(":")[2]
    return replace(target, index=int(number)) if number.isdigit() else target
