"""Plans from the headers of the weights, then loads the pipeline and applies the plan to it."""

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from traceback import clear_frames
from types import MappingProxyType
from typing import Any

from memplan import planner
from memplan.errors import BadInput, LoadFailed, NothingFits
from memplan.faces.api import HERE, Progress, Target, facts, of_kind, price
from memplan.faces.assembled import assembled
from memplan.faces.quiet import libraries_quiet
from memplan.facts import Facts
from memplan.planner import Plan, Shortage
from memplan.probes.machine.host import probe_host
from memplan.registry import parse, strategies
from memplan.strategy import Decision, Strategy

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def load(
    source: str | Path,
    plan: Plan | str | Sequence[str | Strategy] | None = None,
    *,
    prefer: str = "balanced",
    target: Target = HERE,
    device: str = "cuda",
    dtype: str | None = None,
    cache: bool = True,
    progress: Progress | None = None,
    options: Mapping[str, Any] = NO_OPTIONS,
    **call: Any,
) -> Any:
    """The pipeline of `source`, loaded, and ready on `device` under a plan for this call.

    `source` is what `recommend` takes, but for what is in memory. `plan` is one of its plans, or text as people type
    it; without one it is the pick for `prefer`. `options` are further arguments of from_pretrained(), as "variant".

    Nothing is loaded where the plan needs more memory than there is, which raises NothingFits. A pipeline that cannot
    be loaded raises LoadFailed, a plan that cannot be applied ApplyFailed; nothing of the pipeline is left then.
    Raises BadInput for a source, argument or machine that does not exist.
    """
    given: Any = source  # callers without type checkers hand over pipelines
    if not isinstance(given, str | Path):
        raise BadInput(f"a {type(given).__name__} is in memory already: auto_optimize() plans for it")
    reading: dict[str, Any] = {"target": target, "dtype": dtype, "cache": cache, "progress": progress}
    if plan is None:
        chosen = _picked(prefer, device, facts(source, call, **reading))
    elif not isinstance(plan, Plan):
        chosen = price(source, [plan] if isinstance(plan, str) else plan, **reading, **call)
    else:
        chosen = plan
    _check_room(chosen)
    return _built(chosen, device, progress or _silent, options)


def _picked(prefer: str, device: str, measured: Facts) -> Plan:
    """The pick, or where nothing fits the plan that misses the least."""
    planner.check_preference(prefer)
    found = planner.recommend(of_kind(device, measured), strategies())
    return found.pick(prefer) or found.nearest


def _check_room(plan: Plan) -> None:
    """Raises NothingFits where the plan needs more than its machine has, or more host memory than is available now."""
    available = probe_host().available
    here = Shortage("host", "host memory", plan.bill.host.peak, available)
    missing = plan.shortages or ((here,) if here.missing > 0 else ())
    if missing:
        raise NothingFits(f"the plan, {plan}, needs {', and '.join(map(str, missing))}. Nothing has been loaded.")


def _built(plan: Plan, device: str, say: Progress, options: Mapping[str, Any]) -> Any:
    """The pipeline under the plan. Where that fails, what was built is let go of before the error is raised."""
    from memplan.applier import apply

    try:
        with libraries_quiet():
            pipe = _assembled(plan, say, options)
            say("applying the plan")
            apply(_seated(plan), pipe, device)
        return pipe
    except BaseException as error:
        pipe = None
        _let_go(error)
        raise


def _assembled(plan: Plan, say: Progress, options: Mapping[str, Any]) -> Any:
    model = plan.run.facts.model
    try:
        return assembled(model, say, options)
    except Exception as error:
        raise LoadFailed(f"{model.name} could not be loaded: {error}") from error


def _seated(plan: Plan) -> list[Strategy]:
    """The plan's strategies, and on the device what it gives no place."""
    measured = plan.run.facts
    placed = {seat.component for s in plan.strategies for seat in s.seats if seat.decision is Decision.PLACEMENT}
    stay = [part.name for part in measured.model.components if part.name not in placed]
    return [*plan.strategies, *(parse(f"on_gpu:{name}", measured) for name in stay)]


def _let_go(error: BaseException | None) -> None:
    """Frees what the frames of an error hold, which are kept as long as somebody keeps the error."""
    import torch

    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _silent(message: str) -> None:
    """Says nothing."""
