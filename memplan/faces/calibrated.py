"""Keeps what was measured of this machine beside the cached facts: one file for each card."""

import json
import re
import warnings
from dataclasses import replace
from functools import cache
from math import isfinite
from pathlib import Path

from memplan.faces import store
from memplan.facts import KINDS, LIMITS, Calibration, Gpu, Machine, Reading
from memplan.probes.machine.setting import setting

FORMAT = 1
"""Version of the file; it rises when what is kept changes."""
AGAIN = "`memplan calibrate` measures anew, and `memplan calibrate --forget` removes it"


def file_of(gpu: Gpu | None) -> Path:
    """Where the figures of a machine with this card are kept."""
    name = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-") if gpu else "no-gpu"
    return store.directory() / f"calibration-{name}.json"


class _Unusable(Exception):
    """Why a file is not used; the sentence begins with its path."""


def load(gpu: Gpu | None) -> Calibration | None:
    """What was measured here, or None. A file that is damaged or of another setting is not used; a warning says so."""
    path = file_of(gpu)
    try:
        return _checked(_read(path), gpu)
    except FileNotFoundError:
        return None
    except _Unusable as error:
        _warn(f"the calibration {path} {error}; it is not used. {AGAIN}")
        return None


def _read(path: Path) -> Calibration:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise _Unusable(f"cannot be read ({error})") from error
    written = data.get("format", "none") if isinstance(data, dict) else "none"
    if written != FORMAT:
        raise _Unusable(f"is of format {written}, and this memplan reads {FORMAT}")
    try:
        return store.decode(Calibration, data.get("calibration"))
    except (ValueError, TypeError, RecursionError) as error:
        raise _Unusable(f"is damaged ({error})") from error


def _checked(found: Calibration, gpu: Gpu | None) -> Calibration:
    """The calibration, if it is of this setting and its figures can be."""
    if other := found.setting.differences(setting(gpu)):
        raise _Unusable(f"was measured with another setting ({'; '.join(other)})")
    if wrong := next((reading.name for reading in found.readings if not _possible(reading)), None):
        raise _Unusable(f"is damaged ({wrong} cannot be as it says)")
    return found


def _possible(reading: Reading) -> bool:
    """Whether a rate can be as it says; a limit may be any number of bytes."""
    value = 1.0 if reading.value is None else reading.value
    return reading.kind in KINDS and isfinite(value) and (value > 0 or reading.kind in LIMITS)


def save(measured: Calibration, gpu: Gpu | None) -> Path | None:
    """Keep it; the value is where, or None without permission to write, of which a warning tells."""
    text = json.dumps({"format": FORMAT, "calibration": store.encode(measured)}, indent=1)
    path = file_of(gpu)
    return path if store.write(path, text.encode()) else None


def forget(gpu: Gpu | None) -> Path | None:
    """Remove what is kept for a machine with this card; the value is the file, or None where there was none."""
    path = file_of(gpu)
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return path


def with_measured(here: Machine) -> Machine:
    """The machine at hand with the rates that were measured of it, where they were."""
    found = load(here.gpu)
    return replace(here, rates=found.rates(here.rates)) if found else here


@cache
def _warn(text: str) -> None:
    """Once for each sentence: a verb may look at the machine several times."""
    warnings.warn(text, stacklevel=3)
