"""What was measured of a machine, as text and as JSON: each figure beside the one that is assumed without it.

The JSON has schema, machine, file (null where nothing is kept), date and readings: each with name, unit, measured (null
where note says why), assumed, ratio, spread and note. That of --forget has schema and removed: the file, or null.
"""

from pathlib import Path
from typing import Any

from memplan.faces.report import hardware, json
from memplan.faces.report.layout import columns, paragraph
from memplan.facts import Calibration, Machine, Reading

SPARE = (4, 5)
"""Columns that a narrow terminal does without: the spread, then what was measured."""
STEPS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0), ("m", 1e-3), ("u", 1e-6), ("n", 1e-9))
LARGEST = 1e15
"""From here on no prefix fits."""
LEGEND = (
    "Measured: the median of several runs. Spread: how far it lies from the best of them; a large one means that "
    "something else was running. Assumed: what memplan reckons with where nothing is measured; ratio: measured by "
    "assumed. Those in bytes are shown only: no plan uses them. 1 GB = 1,000,000,000 bytes."
)


def calibration(here: Machine, measured: Calibration, file: Path | None) -> str:
    """The machine, the figures, what could not be measured, and where it is kept."""
    known = [r for r in measured.readings if r.value is not None]
    head = ("figure", "measured", "assumed", "ratio", "spread", "of")
    parts = [
        hardware.machine(here),
        columns("lrrrrl", [head, *(_row(r) for r in known)], spare=SPARE),
        _gaps(measured),
        [*paragraph(LEGEND), *paragraph(_kept(file))],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def forgotten(file: Path | None) -> str:
    """What was removed."""
    if file is None:
        return "\n".join(paragraph("Nothing is kept that was measured of this machine."))
    return "\n".join(paragraph(f"Removed {file}: plans for this machine use the assumed rates again."))


def as_json(here: Machine, measured: Calibration, file: Path | None) -> str:
    """All of it for other programs."""
    readings = [_reading(reading) for reading in measured.readings]
    kept = {"file": str(file) if file else None, "date": measured.date, "readings": readings}
    return json.text({"schema": json.SCHEMA, "machine": json.machine(here), **kept})


def forgotten_as_json(file: Path | None) -> str:
    """What was removed."""
    return json.text({"schema": json.SCHEMA, "removed": str(file) if file else None})


def _reading(reading: Reading) -> dict[str, Any]:
    names = ("name", "unit", "assumed", "ratio", "spread", "note")
    return {"measured": reading.value, **{name: getattr(reading, name) for name in names}}


# ---- lines -----------------------------------------------------------------------------------------------------------
def _row(reading: Reading) -> tuple[str, ...]:
    ratio = "" if reading.ratio is None else f"{reading.ratio:.3g}"
    spread = f"{reading.spread:.0%}" if reading.unit != "B" else ""
    shown = figure(reading.value, reading.unit), figure(reading.assumed, reading.unit)
    return (reading.name, *shown, ratio, spread, reading.note)


def figure(value: float | None, unit: str) -> str:
    """With three digits and the prefix that fits, e.g. "53.7 GFLOP/s", "12.1 us", "8.39 MB"; "" for none."""
    if value is None:
        return ""
    prefix, step = next(((p, s) for p, s in STEPS if abs(value) >= s), ("", 1.0))
    return f"{value / step:{',.0f' if value >= LARGEST else '.3g'}} {prefix}{unit}"


def _gaps(measured: Calibration) -> list[str]:
    """What could not be measured, and why; the assumed figure is kept."""
    missing = [r for r in measured.readings if r.value is None]
    lines = ["Not measured, and assumed as before"] if missing else []
    return lines + [line for r in missing for line in paragraph(f"{r.name}: {r.note}", 2, 4)]


def _kept(file: Path | None) -> str:
    if file is None:
        return "Nothing could be kept: later plans use the assumed rates."
    return f"Kept in {file}: plans for this machine use these rates from now on; memplan calibrate --forget removes it."
