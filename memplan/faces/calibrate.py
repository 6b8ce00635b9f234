"""Measures the machine at hand, and has later recommendations for it use the figures."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from memplan.faces import calibrated
from memplan.faces.quiet import libraries_quiet
from memplan.facts import CONTEXT, PINNED_BLOCK, Calibration, Machine, Rates, Reading
from memplan.probes.machine import probe_gpu, probe_machine
from memplan.probes.machine.setting import setting
from memplan.simulator.device import context
from memplan.simulator.weights import pinned

SECONDS, QUICK = 30.0, 8.0
"""How long measuring takes, after the libraries are imported."""


@dataclass(frozen=True)
class Measured:
    """The machine with the measured rates, what was measured, and the file that keeps it, or None."""

    machine: Machine
    calibration: Calibration
    file: Path | None


def calibrate(*, quick: bool = False, progress: Callable[[str], None] | None = None) -> Rates:
    """Measure what this machine sustains, keep it in the user's cache folder, and return the rates.

    It takes about 30 seconds after imports, or 8 if `quick`, and is best done while nothing else runs. From then on
    `recommend`, `price`, `auto_optimize` and `load` reckon the seconds of plans for this machine with these rates; a
    machine that is named never has them. `source` of the rates says when they were measured, and what was not and is as
    before. `memplan calibrate --forget` removes them.
    """
    return measure(QUICK if quick else SECONDS, progress).machine.rates


def forget() -> Path | None:
    """Remove what was measured of this machine; the value is the file, or None where nothing was kept."""
    return calibrated.forget(probe_gpu())


def measure(seconds: float, progress: Callable[[str], None] | None = None) -> Measured:
    """Measure for about so long, and keep it."""
    here = probe_machine()
    with libraries_quiet():
        from memplan.probes.calibrate import measure as take

        readings = take(here.gpu, seconds, progress)
    found = Calibration(setting(here.gpu), date.today().isoformat(), tuple(_beside(r, here) for r in readings))
    file = calibrated.save(found, here.gpu)
    return Measured(replace(here, rates=found.rates(here.rates)), found, file)


def _beside(reading: Reading, here: Machine) -> Reading:
    """With what is assumed where nothing is measured; of a workspace the rule has said so already."""
    if reading.kind == CONTEXT:
        return replace(reading, assumed=float(context(here.gpu)))
    if reading.kind == PINNED_BLOCK:
        from memplan.probes.calibrate.limits import ODD

        return replace(reading, assumed=float(pinned(ODD)))
    return reading if reading.assumed is not None else replace(reading, assumed=reading.of(here.rates))
