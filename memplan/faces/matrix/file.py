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
            return [_typed(kind, line) for line in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise BadInput(
            f"{path} holds no rows of this kind that can be read ({type(error).__name__}: {error}): name another file, "
            "or take that one away"
        ) from error


def _typed(kind: Any, line: dict[str, str]) -> Any:
    return kind(**{field.name: KINDS[field.type](line[field.name]) for field in fields(kind)})


def write(path: Path, kind: type[Any], rows: Iterable[Any]) -> None:
    """Put the rows in the place of the file all at once. Raises BadInput where that fails."""
    scratch = path.with_name(f"{path.name}.part")
    try:
        with scratch.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(kind)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(map(asdict, rows))
        scratch.replace(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error
