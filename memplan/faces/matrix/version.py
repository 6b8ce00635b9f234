"""What tells two states of memplan apart, in a checkout also those of one version."""

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from memplan.faces.keys import LIBRARIES
from memplan.probes.machine.installed import installed
from memplan.registry import strategies

DIGITS = 12
"""Hexadecimal digits of a digest that are kept."""
PROGRAM = Path(__file__).parents[2]


def digest(paths: Iterable[Path], *others: object) -> str:
    """Of the bytes of files, and of what else decides."""
    found = hashlib.sha256(repr(others).encode())
    for path in sorted(paths):
        found.update(path.read_bytes())
    return found.hexdigest()[:DIGITS]


def sources() -> list[Path]:
    """The files of memplan and of its strategies by which plans are found and priced."""
    spec = find_spec("memplan.strategies")
    places = (spec.submodule_search_locations or ()) if spec else ()
    return sorted({p for root in (PROGRAM, *places) for p in Path(root).rglob("*") if p.suffix in (".py", ".json")})


@cache
def program() -> str:
    """The state of memplan, of its plug-ins, of the libraries, and of the packages that techniques need."""
    plugins = [f"{cls.__module__}.{cls.__qualname__}" for cls in strategies()]
    return digest(sources(), plugins, [(name, version(name)) for name in LIBRARIES], installed())
