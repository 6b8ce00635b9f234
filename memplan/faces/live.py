"""Plans for pipelines in memory: what is applied to them, and what is."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memplan import planner
from memplan.errors import BadInput
from memplan.faces.api import HERE, Progress, Target, facts, listed, named, numbered, of_kind, placed
from memplan.faces.history import expected
from memplan.faces.room import standing
from memplan.faces.training import checked, weighed
from memplan.facts import Facts, Purpose, Training
from memplan.planner import Plan
from memplan.registry import strategies, switches
from memplan.strategy import Strategy

if TYPE_CHECKING:
    from memplan.applier import Applied

LOG = logging.getLogger("memplan")
NOT_DONE = "Nothing has been changed."
BALANCED = "balanced"
"""What is preferred where nobody says."""


def auto_optimize(
    pipe: Any,
    plan: Plan | str | Sequence[str | Strategy] | None = None,
    *,
    prefer: str | None = None,
    target: Target = HERE,
    device: str = "cuda",
    progress: Progress | None = None,
    force: bool = False,
    train: Training | None = None,
    **call: Any,
) -> "Applied":
    """Plan for a live pipeline, or modules, and this call, and apply the pick of that preference to it, or `plan`.

    With `train` the plan is for a training step of its denoiser, which comes to the device; adapters may be added
    before or after. Then make the optimizer, and wrap the denoiser in DistributedDataParallel last.
    `prefer` is "quality", "speed", "memory", or "balanced" as by default; `plan` is text as reports write it, as
    "bnb_4bit:transformer", parts of it, or a Plan. The value undoes it; what it cannot undo is logged as a warning
    before anything is done. The plan is for the memory of `target` and for what `device` can do: a rehearsal on "cpu"
    has no streams and no device context. Raises NothingFits, before anything is done, when no plan fits, or this one
    does not: not the target, or not what this machine has free by then of device and host memory. A plan that nobody
    named gives way to the pick for what is left. With `force` a plan that does not fit is applied all the same. Raises
    BadInput for an unknown preference or strategy, a preference beside a plan, a pipeline that carries a plan already,
    which it names, and one of which something is wrapped for training on several devices already.
    """
    from memplan.applier import check_free
    from memplan.probes.sources.modules import as_pipeline

    prefer = preferred(plan, prefer)
    if hasattr(as_pipeline(pipe), "components"):
        check_free(as_pipeline(pipe))
    parts = None if plan is None else listed(plan)
    train, target = checked(train), numbered(target, device)
    measured = facts_of(pipe, call, parts or (), target=target, device=device, progress=progress, train=train)
    chosen, wish = _chosen(measured, parts, prefer), prefer if parts is None else None
    chosen = standing(chosen, target, wish, undone=NOT_DONE, force=force)
    return put(chosen, pipe, device)


def facts_of(
    pipe: Any,
    call: Mapping[str, Any],
    parts: Sequence[str | Strategy],
    *,
    target: Target,
    device: str,
    progress: Progress | None = None,
    train: Training | None = None,
) -> Facts:
    """What is measured of a live pipeline for plans of these `parts`, or any, that are made for `device`."""
    from memplan.probes.sources.modules import as_pipeline

    asked = switches(parts) if parts else weighed(Purpose.TRAINING if train else Purpose.CALLS)
    measured = facts(pipe, call, target=target, progress=progress, switches=asked, train=train)
    return of_kind(device, _in_place(measured, as_pipeline(pipe)))


def put(plan: Plan, pipe: Any, device: str) -> "Applied":
    """Apply a plan, and say before what of it stays. Raises as apply() does."""
    from memplan.applier import apply, one_way
    from memplan.probes.sources.modules import as_pipeline

    for stays in one_way(plan.strategies):
        LOG.warning("%s.", stays)
    done = apply(placed(plan), as_pipeline(pipe), device)
    expected.remember(done, plan)
    return done


def preferred(plan: object, prefer: str | None) -> str:
    """The preference by which a plan is chosen. Raises BadInput for an unknown one, and for one beside a plan."""
    if plan is not None and prefer is not None:
        raise BadInput(f"prefer={prefer!r} chooses among plans, and plan names one: give one of the two")
    planner.check_preference(prefer or BALANCED)
    return prefer or BALANCED


def _in_place(measured: Facts, pipe: Any) -> Facts:
    """The same facts with the components that are on a device already, where a plan finds them."""
    from memplan.probes.pipeline import on_device

    there = on_device(pipe)
    parts = tuple(replace(part, on_device=part.name in there) for part in measured.model.components)
    return replace(measured, model=replace(measured.model, components=parts))


def _chosen(measured: Facts, parts: Sequence[str | Strategy] | None, prefer: str) -> Plan:
    """The plan that is named, else the pick, or where nothing fits the plan that misses the least."""
    if parts is not None:
        return named(measured, parts)
    found = planner.recommend(measured, strategies())
    return found.pick(prefer) or found.nearest


def applied(pipe: Any) -> "Applied | None":
    """What load() or auto_optimize() has applied to a pipeline or to modules, and undo() has not taken off yet.

    None where that is nothing. It is kept with the pipeline in memory, and is not saved or copied with it.
    """
    from memplan.applier import applied as found
    from memplan.probes.sources.modules import as_pipeline

    return found(as_pipeline(pipe))
