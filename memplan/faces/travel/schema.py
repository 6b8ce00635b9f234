"""Holds a value against the published schema: the part of JSON Schema that this uses."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

FILE = "plan.schema.json"
Test = Callable[[Any], bool]
TYPES: Mapping[str, Test] = {
    "array": lambda value: isinstance(value, list),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}
KNOWN = frozenset((
    "$schema", "title", "description", "type", "const", "minimum", "required", "properties", "additionalProperties",
    "items",
))  # fmt: skip
"""The words of a schema that are understood here; the first three say nothing of a value."""


@cache
def schema() -> Mapping[str, Any]:
    """The published one."""
    return json.loads((files("memplan.faces.travel") / FILE).read_text("utf-8"))


def faults(value: Any, by: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """What of `value` is not as the schema `by` says: a sentence for each, with its path."""
    place = where or "the file"
    types = [by["type"]] if isinstance(by.get("type"), str) else by.get("type", [])
    if types and not any(TYPES[name](value) for name in types):
        yield f"{place} is {_kind(value)}, not {' or '.join(types)}"
        return
    if "const" in by and value != by["const"]:
        yield f"{place} is {value}, not {by['const']}"
    if "minimum" in by and value < by["minimum"]:
        yield f"{place} is {value}, below {by['minimum']}"
    if isinstance(value, dict):
        yield from _of_object(value, by, where)
    if isinstance(value, list) and "items" in by:
        for at, item in enumerate(value):
            yield from faults(item, by["items"], f"{where}[{at}]")


def _of_object(value: Mapping[str, Any], by: Mapping[str, Any], where: str) -> Iterator[str]:
    before = f"{where}." if where else ""
    own, others = by.get("properties", {}), by.get("additionalProperties", True)
    yield from (f"{before}{name} is missing" for name in by.get("required", []) if name not in value)
    for name, item in value.items():
        if name in own:
            yield from faults(item, own[name], f"{before}{name}")
        elif others is False:
            yield f"{before}{name} is not known"
        elif others is not True:
            yield from faults(item, others, f"{before}{name}")


def _kind(value: Any) -> str:
    return next((name for name, fits in TYPES.items() if fits(value)), type(value).__name__)
