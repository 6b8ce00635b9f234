"""JSON files that strangers wrote: small, whole, and with no number that would take the machine's memory or the day."""

import json
from pathlib import Path
from typing import Any

from memplan.errors import BadInput

_LARGEST_FILE = 16_000_000
"""Bytes of the longest config that is read; real ones have some thousand."""
_LARGEST_NUMBER = 10**8
"""The largest integer a config may hold; vocabularies, positions and pixels stay far below."""
_MOST_LAYERS = 10**5
_LAYERED = ("layer", "depth", "block")
_FREE = ("theta", "seed")
"""Parts of keys: of those that count layers, and of those that count nothing."""


def json_table(path: Path) -> dict[str, Any]:
    """The table in a JSON file. Raises BadInput for one that is missing, damaged or no table."""
    try:
        if not path.is_file():
            raise BadInput(f"{path} is missing; only the weights may be. Download or save it again.")
        if path.stat().st_size > _LARGEST_FILE:
            raise BadInput(f"{path} has {path.stat().st_size} bytes, far too many for a config. Download it again.")
        data = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise BadInput(f"{path} is nested too deeply. Download or save it again.") from error
    except BadInput:
        raise
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not valid JSON: {error}. Download or save it again.") from error
    if not isinstance(data, dict):
        raise BadInput(f"{path} holds a {type(data).__name__} instead of a table. Download or save it again.")
    return data


def config_table(path: Path) -> dict[str, Any]:
    """The same for a component's config. Raises BadInput for a number that no model has, too."""
    table = json_table(path)
    pending: list[tuple[str, Any]] = list(table.items())
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            pending += value.items()
        elif isinstance(value, list):
            pending += ((key, item) for item in value)
        elif isinstance(value, int) and abs(value) > _limit(key):
            raise BadInput(f"{path}: no model has {key} = {str(value)[:20]}. Correct it, or download the file again.")
    return table


def _limit(key: str) -> float:
    if any(part in key for part in _FREE):
        return float("inf")
    return _MOST_LAYERS if any(part in key for part in _LAYERED) else _LARGEST_NUMBER
