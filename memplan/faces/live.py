"""Plans for pipelines in memory: what is applied to them, and what is."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memplan import planner
from memplan.errors import NothingFits
from memplan.faces.api import HERE, Progress, Target, facts, listed, named, numbered, of_kind, placed
from memplan.faces.history import expected
from memplan.facts import Facts
from memplan.planner import Plan
from memplan.registry import strategies, switches
from memplan.strategy import Strategy

if TYPE_CHECKING:
    from memplan.applier import Applied

LOG = logging.getLogger("memplan")


def auto_optimize(
    pipe: Any,
    plan: Plan | str | Sequence[str | Strategy] | None = None,
    *,
    prefer: str = "balanced",
    target: Target = HERE,
    device: str = "cuda",
    progress: Progress | None = None,
    **call: Any,
) -> "Applied":
    """Plan for a live pipeline, or modules, and this call, and apply the pick of that preference to it, or `plan`.

    `prefer` is "quality", "speed", "memory" or "balanced"; `plan` is text as reports write it, as
    "bnb_4bit:transformer", parts of it, or a Plan. The value undoes it; what it cannot undo is logged as a warning
    before anything is done. The plan is for the memory of `target` and for what `device` can do: a rehearsal on "cpu"
    has no streams and no device context. Raises NothingFits when no plan fits, or this one does not; BadInput for an
    unknown preference or strategy, and for a pipeline that carries a plan already, which it names.
    """
    from memplan.applier import apply, check_free, one_way
    from memplan.probes.sources.modules import as_pipeline

    planner.check_preference(prefer)
    if hasattr(as_pipeline(pipe), "components"):
        check_free(as_pipeline(pipe))
    parts = None if plan is None else listed(plan)
    asked = switches(parts or ())
    measured = facts(pipe, call, target=numbered(target, device), progress=progress, switches=asked)
    chosen = _chosen(of_kind(device, _in_place(measured, as_pipeline(pipe))), parts, prefer)
    for stays in one_way(chosen.strategies):
        LOG.warning("%s.", stays)
    done = apply(placed(chosen), as_pipeline(pipe), device)
    expected.remember(done, chosen)
    return done


def _in_place(measured: Facts, pipe: Any) -> Facts:
    """The same facts with the components that are on a device already, where a plan finds them."""
    from memplan.probes.pipeline import on_device

    there = on_device(pipe)
    parts = tuple(replace(part, on_device=part.name in there) for part in measured.model.components)
    return replace(measured, model=replace(measured.model, components=parts))


def _chosen(measured: Facts, parts: Sequence[str | Strategy] | None, prefer: str) -> Plan:
    """The plan that is named, else the pick. Raises NothingFits."""
    if parts is not None:
        plan = named(measured, parts)
        if not plan.fits:
            raise NothingFits(f"the plan, {plan}, needs {', and '.join(map(str, plan.shortages))}")
        return plan
    found = planner.recommend(measured, strategies())
    pick = found.pick(prefer)
    if pick is None:
        missing = ", and ".join(map(str, found.nearest.shortages))
        raise NothingFits(f"the nearest plan, {found.nearest}, needs {missing}")
    return pick


def applied(pipe: Any) -> "Applied | None":
    """What load() or auto_optimize() has applied to a pipeline or to modules, and undo() has not taken off yet.

    None where that is nothing. It is kept with the pipeline in memory, and is not saved or copied with it.
    """
    from memplan.applier import applied as found
    from memplan.probes.sources.modules import as_pipeline

    return found(as_pipeline(pipe))
