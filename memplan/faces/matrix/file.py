"""Rows of a dataclass in a CSV file: a column for each field."""

import csv
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from memplan.errors import BadInput

Kind = TypeVar("Kind")
KINDS: dict[Any, Any] = {
    str: str,
    bool: lambda text: text == "True",
    int: int,
    float: float,
    float | None: lambda text: float(text) if text else None,
    int | None: lambda text: int(text) if text else None,
}
"""How text is read for a field of each type."""


def read(kind: type[Kind], path: Path) -> list[Kind]:
    """The rows in the file, each of them a `kind`; [] where there is none.

    Raises BadInput for a file that holds anything else, which is thus never written over.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            if lines.fieldnames != _columns(kind):
                raise BadInput(f"{path} has other columns than are written here: name another file, or take it away")
            return [_typed(kind, line) for line in lines]
    except (OSError, TypeError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise BadInput(f"{path} cannot be read ({error}): name another file, or take it away") from error


def _columns(kind: type[Any]) -> list[str]:
    return [field.name for field in fields(kind)]


def _typed(kind: Any, line: dict[str, str]) -> Any:
    return kind(**{field.name: KINDS[field.type](line[field.name]) for field in fields(kind)})


def write(path: Path, kind: type[Any], rows: Iterable[Any]) -> None:
    """Put the rows in the place of the file all at once. Raises BadInput where that fails."""
    scratch = path.with_name(f"{path.name}.part")
    try:
        with scratch.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _columns(kind), lineterminator="\n")
            writer.writeheader()
            writer.writerows(map(asdict, rows))
        scratch.replace(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error
