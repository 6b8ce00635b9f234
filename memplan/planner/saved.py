"""A plan as a file holds it: what was planned, for what, and what it was predicted to take."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

FACE = "memplan.faces.travel.files"
"""Where plans are read and applied. It stands above this layer, and is imported when it is asked for."""


@dataclass(frozen=True)
class Saved:
    """The fields are those of memplan/faces/travel/plan.schema.json, which says what each means."""

    plan: str
    reason: str
    model: Mapping[str, Any]
    call: Mapping[str, Any]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    predicted: Mapping[str, Any]

    def apply(self, pipe: Any, *, device: str = "cuda", force: bool = False, **call: Any) -> Any:
        """Price the plan anew for `pipe` and this machine, and apply it; the value undoes it as auto_optimize()'s does.

        `call` are arguments of the pipeline's call, in place of those that the plan was made for; `target` among them
        is the machine to price it for. Raises BadInput for a pipeline of another class and for a technique that cannot
        be had here, and NothingFits with the figures where the plan no longer fits, unless `force`.
        """
        return import_module(FACE).apply(self, pipe, device=device, force=force, **call)

    def __str__(self) -> str:
        """The plan as people type it."""
        return self.plan
