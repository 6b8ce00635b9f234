"""Plans for pipelines in memory: what is applied to them, and what is."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memplan import planner
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


def auto_optimize(
    pipe: Any,
    plan: Plan | str | Sequence[str | Strategy] | None = None,
    *,
    prefer: str = "balanced",
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
    `prefer` is "quality", "speed", "memory" or "balanced"; `plan` is text as reports write it, as
    "bnb_4bit:transformer", parts of it, or a Plan. The value undoes it; what it cannot undo is logged as a warning
    before anything is done. The plan is for the memory of `target` and for what `device` can do: a rehearsal on "cpu"
    has no streams and no device context. Raises NothingFits, before anything is done, when no plan fits, or this one
    does not: not the target, or not what this machine has free by then of device and host memory. A plan that nobody
    named gives way to the pick for what is left. With `force` a plan that does not fit is applied all the same. Raises
    BadInput for an unknown preference or strategy, for a pipeline that carries a plan already, which it names, and for
    one of which something is wrapped for training on several devices already.
    """
    from memplan.applier import apply, check_free, one_way
    from memplan.probes.sources.modules import as_pipeline

    planner.check_preference(prefer)
    if hasattr(as_pipeline(pipe), "components"):
        check_free(as_pipeline(pipe))
    parts = None if plan is None else listed(plan)
    train = checked(train)
    asked = switches(parts) if parts is not None else weighed(Purpose.TRAINING if train else Purpose.CALLS)
    target = numbered(target, device)
    measured = facts(pipe, call, target=target, progress=progress, switches=asked, train=train)
    chosen = _chosen(of_kind(device, _in_place(measured, as_pipeline(pipe))), parts, prefer)
    chosen = standing(chosen, target, None if parts is not None else prefer, undone=NOT_DONE, force=force)
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
