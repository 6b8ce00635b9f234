"""Reports as pages. The face that writes them stands above this layer, and is imported when it is asked for."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan.errors import BadInput
from memplan.facts import Facts, Purpose

if TYPE_CHECKING:
    from memplan.planner.plan import Plan, Recommendation

FACE = "memplan.faces.report.html.page"


def of_plan(plan: "Plan", path: str | Path | None, call: Mapping[str, Any]) -> str:
    """The page of a plan, written to `path` where there is one."""
    _check(plan.run.facts)
    return _written(import_module(FACE).page_of(plan, call), path)


def of_recommendation(found: "Recommendation", path: str | Path | None, prefer: str, call: Mapping[str, Any]) -> str:
    """The page of a recommendation, written to `path` where there is one."""
    _check(found.facts)
    return _written(import_module(FACE).page(found, call, prefer), path)


def _check(facts: Facts) -> None:
    if facts.purpose is not Purpose.CALLS:
        raise BadInput(f"a page is for calls of a pipeline: {facts.purpose.one} has no timeline")


def _written(text: str, path: str | Path | None) -> str:
    try:
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}") from error
    return text
