"""Plans for pipelines in memory: what is applied to them, and what is."""

from typing import TYPE_CHECKING, Any

from memplan import planner
from memplan.errors import NothingFits
from memplan.faces.api import HERE, Progress, Target, facts, numbered, of_kind
from memplan.registry import strategies

if TYPE_CHECKING:
    from memplan.applier import Applied


def auto_optimize(
    pipe: Any,
    *,
    prefer: str = "balanced",
    target: Target = HERE,
    device: str = "cuda",
    progress: Progress | None = None,
    **call: Any,
) -> "Applied":
    """Plan for a live pipeline, or modules, and this call, and apply the pick of that preference to it.

    `prefer` is "quality", "speed", "memory" or "balanced". The value undoes it. The plan is for the memory of `target`
    and for what `device` can do: a rehearsal on "cpu" has no streams and no device context. Raises NothingFits when no
    plan fits, BadInput for an unknown preference and for a pipeline that carries a plan already, which it names.
    """
    from memplan.applier import apply, check_free
    from memplan.probes.sources.modules import as_pipeline

    planner.check_preference(prefer)
    if hasattr(as_pipeline(pipe), "components"):
        check_free(as_pipeline(pipe))
    measured = facts(pipe, call, target=numbered(target, device), progress=progress)
    found = planner.recommend(of_kind(device, measured), strategies())
    plan = found.pick(prefer)
    if plan is None:
        missing = ", and ".join(map(str, found.nearest.shortages))
        raise NothingFits(f"the nearest plan, {found.nearest}, needs {missing}")
    return apply(plan.strategies, as_pipeline(pipe), device)


def applied(pipe: Any) -> "Applied | None":
    """What load() or auto_optimize() has applied to a pipeline or to modules, and undo() has not taken off yet.

    None where that is nothing. It is kept with the pipeline in memory, and is not saved or copied with it.
    """
    from memplan.applier import applied as found
    from memplan.probes.sources.modules import as_pipeline

    return found(as_pipeline(pipe))
