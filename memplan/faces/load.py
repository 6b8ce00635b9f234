"""Plans from the headers of the weights, then loads the pipeline and applies the plan to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from memplan import planner
from memplan.errors import BadInput
from memplan.faces.api import HERE, Progress, Target, facts, listed, machine, named, numbered, of_kind, placed
from memplan.faces.assembled import assembled
from memplan.faces.history import expected
from memplan.faces.history.learned import with_learned
from memplan.faces.letting_go import let_go
from memplan.faces.live import preferred
from memplan.faces.options import Options, read_options
from memplan.faces.quiet import libraries_quiet
from memplan.faces.room import standing
from memplan.facts import Facts
from memplan.planner import Plan
from memplan.probes.sources import is_of, look
from memplan.registry import strategies, switches
from memplan.strategy import Strategy

NOT_LOADED, LET_GO = "Nothing has been loaded.", "What had been loaded is let go of."
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def load(
    source: str | Path,
    plan: Plan | str | Sequence[str | Strategy] | None = None,
    *,
    prefer: str | None = None,
    target: Target = HERE,
    device: str = "cuda",
    dtype: str | None = None,
    cache: bool = True,
    progress: Progress | None = None,
    options: Mapping[str, Any] = NO_OPTIONS,
    force: bool = False,
    **call: Any,
) -> Any:
    """The pipeline of `source`, loaded, and ready on `device` under a plan for this call; `applied(pipe)` undoes it.

    `source` is what `recommend` takes, but for what is in memory. `plan` is one of its plans for this source, or text
    as people type it; without one it is the pick for `prefer`. A plan is priced anew for `target`, for this machine and
    for what `device` can do. `options` are further arguments of from_pretrained(), as "variant", and components to use
    in place of the pipeline's own, by name; memplan itself reads the Hub as huggingface_hub is set up.

    Nothing is loaded where the plan needs more device or host memory than there is, which raises NothingFits; `force`
    loads it all the same. Memory is measured again before the plan is applied: where it has become too little, a plan
    that nobody named gives way to the pick for what is left, and a named one is refused. A pipeline that cannot
    be loaded raises LoadFailed, a plan that cannot be applied ApplyFailed; nothing of the pipeline is left then.
    Raises BadInput for a source, argument or machine that does not exist, and for a plan that cannot be had there.
    """
    from memplan.applier import check_device

    given: Any = source  # callers without type checkers hand over pipelines
    if not isinstance(given, str | Path):
        raise BadInput(f"a {type(given).__name__} is in memory already: auto_optimize() plans for it")
    prefer = preferred(plan, prefer)
    look(source)
    check_device(device)
    target, wanted = numbered(target, device), read_options(options, dtype)
    if isinstance(plan, Plan):
        _check_made_for(plan, source, wanted)
        _check_call_of(plan, call)
        chosen = named(_on(device, plan.run.facts, target), plan.strategies)
    else:
        reading: dict[str, Any] = {"target": target, "dtype": wanted.dtype, "variant": wanted.variant}
        parts = None if plan is None else listed(plan)
        reading |= {"cache": cache, "progress": progress, "switches": switches(parts or ())}
        measured = of_kind(device, facts(wanted.source(source), call, parts=wanted.parts, **reading))
        chosen = _picked(prefer, measured) if parts is None else named(measured, parts)
    wish = prefer if plan is None else None
    checked = partial(standing, target=target, prefer=wish, force=force)
    chosen, again = checked(chosen, undone=NOT_LOADED), partial(checked, undone=LET_GO)
    return _built(chosen, device, progress or _silent, wanted, again)


# ---- the plan --------------------------------------------------------------------------------------------------------
def _picked(prefer: str, measured: Facts) -> Plan:
    """The pick, or where nothing fits the plan that misses the least."""
    found = planner.recommend(measured, strategies())
    return found.pick(prefer) or found.nearest


def _check_made_for(plan: Plan, source: str | Path, wanted: Options) -> None:
    """Raises BadInput for a plan of another source, or of other components or dtypes than `wanted`."""
    model = plan.run.facts.model
    again = "plan for that with recommend(), or give the plan as text"
    if not is_of(source, model):
        raise BadInput(f"the plan was made for {model.name}, not for {source}: {again}")
    if wanted.parts:
        raise BadInput(f"the plan was made without the {', '.join(wanted.parts)} in options: give the plan as text")
    if wanted.weights and wanted.variant != model.variant:
        raise BadInput(f"the plan was made for the files of variant {model.variant or 'none'}: {again}")
    others = {part.dtype for part in model.components} - {wanted.dtype}
    if wanted.dtype and others:
        raise BadInput(f"the plan was made for loading in {', '.join(sorted(others))}, not {wanted.dtype}: {again}")


def _check_call_of(plan: Plan, call: Mapping[str, Any]) -> None:
    """Raises BadInput for a number of another call than that which the plan was made for."""
    made = dict(plan.run.facts.trace.arguments)
    for name, value in call.items():
        if isinstance(value, int | float) and name in made and not _is_number(made[name], value):
            asked = f"{name}={made[name]}, not {name}={value}"
            raise BadInput(f"the plan was made for {asked}: plan for that with recommend(), or give the plan as text")


def _is_number(shown: str, value: float) -> bool:
    """Whether an argument that is kept as text is this number: 4 and 4.0 are the same guidance scale."""
    try:
        return float(shown) == value
    except ValueError:
        return shown == str(value)


def _on(device: str, measured: Facts, target: Target) -> Facts:
    """The same model and call on the machine of `target`; a rehearsal where no card is has that of the facts."""
    there = machine(target)
    there = with_learned(there, measured.model) if target.is_here else there
    return of_kind(device, replace(measured, machine=replace(there, gpu=there.gpu or measured.machine.gpu)))


# ---- the deed --------------------------------------------------------------------------------------------------------
def _built(plan: Plan, device: str, say: Progress, options: Options, again: Callable[[Plan], Plan]) -> Any:
    """The pipeline under the plan that `again` leaves of it. Where that fails, what was built is let go of first."""
    from memplan.applier import apply, one_way

    try:
        with libraries_quiet():
            pipe = assembled(plan.run.facts.model, say, options)
            plan = again(plan)
            say("applying the plan")
            for stays in one_way(plan.strategies):
                say(f"{stays}.")
            expected.remember(apply(placed(plan), pipe, device), plan)
        return pipe
    except BaseException as error:
        pipe = None
        let_go(error)
        raise


def _silent(message: str) -> None:
    """Says nothing."""
