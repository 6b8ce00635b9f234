"""Measured runs beside their predictions: as text, and as JSON.

The JSON is an object with schema (2; it rises when a key changes its meaning or goes), file (null from `memplan
verify`), and runs, oldest first. A run holds at (UTC), place (card, driver, torch, diffusers, memplan), model,
class_name, content, digest, call (name -> value, long texts cut short), plan, device, beside, clean, why_none,
compared, excess, and phases: phase, component, and predicted, measured and residual, each of allocated, reserved,
seconds and ram, in bytes and seconds; null for what is not known.
"""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from memplan.errors import did_you_mean
from memplan.faces.history.record import PEAKED, Figures, Phase, Record
from memplan.faces.report.json import text, value
from memplan.faces.report.layout import columns, paragraph, titled
from memplan.facts.units import UNITS, amount, mib

SCHEMA = 2
NAMES = tuple(f.name for f in fields(Figures))
SPARE = (1, 9, 6, 7)
"""Columns that a narrow terminal does without: the component, then host memory and seconds that were predicted."""
LEGEND = (
    "Memory in MiB, time in s; more: measured less predicted, of what a GPU's allocator told. RAM: the most that this "
    "process held, seen every 20 ms. Seconds of a first call have the start of the device in them. "
)


def none_of(model: str, runs: Sequence[Record], file: Path) -> str:
    """That nothing is kept of `model`, and of what there is something: of each name, and each class of pipelines."""
    kept = dict.fromkeys(name for one in runs for name in (one.model, one.class_name))
    there = f"there are runs of {', '.join(kept)}" if kept else "it has none at all"
    return "\n".join(paragraph(f"No runs of {model} are kept in {file}: {there}.{did_you_mean(model, kept)}"))


def history(runs: Sequence[Record], file: Path) -> str:
    """All runs, and where they are kept."""
    if not runs:
        return "\n".join(paragraph(f"No runs are kept in {file}: memplan.verify() and memplan run --record keep them."))
    kept = f"Kept in {file}; nothing of it leaves this machine. memplan history --forget removes it."
    return "\n\n".join([*map(_run, runs), "\n".join([*paragraph(LEGEND + UNITS + "."), *paragraph(kept)])])


def run(one: Record) -> str:
    """One run."""
    return "\n".join([_run(one), "", *paragraph(LEGEND + UNITS + ".")])


def as_json(runs: Sequence[Record], file: Path | None) -> str:
    """The runs for other programs."""
    return text({"schema": SCHEMA, "file": str(file) if file else None, "runs": [_record(one) for one in runs]})


def forgotten(file: Path | None) -> str:
    """What was removed."""
    said = f"Removed {file}: predictions are used as they are again." if file else "No measured runs are kept."
    return "\n".join(paragraph(said))


def forgotten_as_json(file: Path | None) -> str:
    """What was removed."""
    return text({"schema": SCHEMA, "removed": str(file) if file else None})


# ---- parts -----------------------------------------------------------------------------------------------------------
def _record(one: Record) -> dict[str, Any]:
    phases = [asdict(phase) | {"residual": {n: _residual(one, phase, n) for n in NAMES}} for phase in one.phases]
    whole = asdict(one) | {"call": {name: value(shown) for name, shown in one.call}, "phases": phases}
    return {**whole, "compared": one.compared, "excess": one.excess}


def _residual(one: Record, phase: Phase, name: str) -> float | None:
    return phase.residual(name) if one.compared else None


def _run(one: Record) -> str:
    place = one.place
    card = f"{place.card or 'no GPU'}{f', driver {place.driver}' if place.driver else ''}"
    versions = f"torch {place.torch}, diffusers {place.diffusers}, memplan {place.memplan}"
    name = one.model if one.model == one.class_name else f"{one.model}, {one.class_name}"
    call = ", ".join(f"{argument}={shown}" for argument, shown in one.call)
    return "\n".join([
        *titled("Run", [f"{one.at.replace('T', ' ')} UTC, {name}, on {one.device}"]),
        *titled("Machine", [f"{card}; {versions}"]),
        *(titled("Plan", [one.plan]) if one.plan else []),
        *(titled("Call", [call]) if call else []),
        *titled("Note", _notes(one)),
        *columns("llrrrrrrrr", _rows(one), spare=SPARE),
    ])  # fmt: skip


def _notes(one: Record) -> list[str]:
    notes = [f"nothing was predicted: {one.why_none}"] if one.why_none else []
    if one.device not in PEAKED:
        notes.append(f"on {one.device} only seconds and RAM are measured; predictions are those of a GPU, not compared")
    if one.beside:
        notes.append(
            f"{amount(one.beside)} of device memory was held by others' tensors, and is not in what is learned"
        )
    if one.excess:
        notes.append(f"{mib(one.excess)} MiB more than predicted at most")
    return notes


def _rows(one: Record) -> list[tuple[str, ...]]:
    head = ("", "", "allocated", "", "reserved", "", "seconds", "", "RAM", "")
    unit = (
        "phase",
        "component",
        "pred/meas",
        "more",
        "pred/meas",
        "more",
        "predicted",
        "measured",
        "measured",
        "pred.",
    )
    return [head, unit, *(_row(one, phase) for phase in one.phases)]


def _row(one: Record, phase: Phase) -> tuple[str, ...]:
    predicted, measured = phase.predicted, phase.measured
    memory = []
    for name in ("allocated", "reserved"):
        more = _residual(one, phase, name)
        pair = f"{_size(getattr(predicted, name))}/{_size(getattr(measured, name))}"
        memory += [pair, "" if more is None else f"{more / 2**20:+,.0f}"]
    times = [f"{figures.seconds:.2f}" if figures.seconds is not None else "-" for figures in (predicted, measured)]
    where = (phase.phase, phase.component or "(pipeline)")
    return (*where, *memory, *times, _size(measured.ram), _size(predicted.ram))


def _size(nbytes: int | None) -> str:
    return "-" if nbytes is None else mib(nbytes)
