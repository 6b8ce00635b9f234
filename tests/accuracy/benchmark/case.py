"""One case of the benchmark, and what came of it."""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

RAN, OOM, ABSENT, FAILED = "ran", "out of memory", "not installed", "failed"
"""Outcomes. FAILED is also a process that was killed, or that took too long; the note says which."""


@dataclass(frozen=True)
class Case:
    """A bundled model, GiB of device memory that the process may have, a way to run it, and its denoising steps.

    `model` is a bundled name, or "small:FAMILY" for a pipeline of tests/pipelines. `device` is "cuda", or "cpu" for a
    rehearsal, in which nothing of a device is measured. `calls` are made one after the other: the first one is cold.
    """

    model: str
    cap: float
    way: str
    steps: int = 8
    device: str = "cuda"
    calls: int = 3


@dataclass(frozen=True)
class Result:
    """What was predicted and what was measured, in bytes and seconds; None where there is no figure.

    `allocated` and `reserved` are the peaks of PyTorch's allocator over all calls, `outside` what the driver says the
    device has in use beside it, `host` the most resident memory of the process. `first` is the cold call, `steady` the
    median of the others. `plan` is in memplan's words, "" for a way that memplan does not price.
    """

    plan: str = ""
    predicted_allocated: int | None = None
    predicted_reserved: int | None = None
    predicted_required: int | None = None
    predicted_host: int | None = None
    predicted_seconds: float | None = None
    predicted_fits: bool | None = None
    loss: str = ""
    outcome: str = FAILED
    allocated: int | None = None
    reserved: int | None = None
    outside: int | None = None
    host: int | None = None
    first: float | None = None
    steady: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Machine:
    """Where and when: the card and its driver, the computer it is in, and the versions of the libraries."""

    date: str
    gpu: str
    driver: str
    computer: str
    versions: str


Entry = tuple[Case, Result, Machine]
KINDS = (Case, Result, Machine)


def read(path: Path) -> list[Entry]:
    """The entries of the file; [] where there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_entry(line) for line in csv.DictReader(file)]


def _entry(line: dict[str, str]) -> Any:
    return tuple(kind(**{f.name: _typed(f.type, line[f.name]) for f in fields(kind)}) for kind in KINDS)


def _typed(kind: Any, text: str) -> Any:
    """The value that was written; an empty text is None, but where there is always a text."""
    if kind is str:
        return text
    if not text:
        return None
    return text == "True" if "bool" in str(kind) else float(text) if "float" in str(kind) else int(text)


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Put the entries in the place of the file all at once."""
    scratch = path.with_suffix(".part")
    with scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for kind in KINDS for f in fields(kind)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(case), **asdict(result), **asdict(machine)} for case, result, machine in entries)
    scratch.replace(path)
