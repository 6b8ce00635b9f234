"""What memplan predicts for a call of a live pipeline, and what it predicted for one that a plan was applied to."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

from memplan import planner
from memplan.errors import MemplanError, NoGpu
from memplan.faces.history.record import Figures
from memplan.faces.measuring import facts
from memplan.faces.quiet import libraries_quiet
from memplan.faces.target import HERE, Target
from memplan.facts import Model
from memplan.planner import Plan
from memplan.probes.fakes.sizes import SIZES

AS_LOADED = "everything on the device"
TEXT, NONE = "a text", "None"


@dataclass(frozen=True)
class Expected:
    """A prediction by phase and component, in a bill's order, and what it is for; or why there is none.

    `content` is that of Record. `call` are the arguments that it was made for, as people read them.
    """

    model: str = ""
    content: str = ""
    plan: str = ""
    call: tuple[tuple[str, str], ...] = ()
    phases: tuple[tuple[str, str, Figures], ...] = ()
    why_none: str = ""


_applied: WeakKeyDictionary[Any, Expected] = WeakKeyDictionary()
"""Those of the plans that are applied now, by what apply() gave."""


def remember(done: Any, plan: Plan) -> None:
    """Keep the prediction of a plan for as long as it is applied: with it the pipeline cannot be measured anew."""
    _applied[done] = of_plan(plan)


def of_plan(plan: Plan) -> Expected:
    """A plan's prediction, without what earlier runs taught."""
    measured, pace = plan.run.facts, plan.run.facts.machine.learned.pace
    if measured.training:
        return Expected(plan=str(plan), why_none="the plan that is applied is for a training step, and this is a call")
    phases = (
        (p.phase, p.component, Figures(p.memory.allocated, p.memory.reserved, p.seconds / pace, p.host))
        for p in plan.bill.peaks
    )
    text = str(plan) if plan.strategies else AS_LOADED
    return Expected(measured.model.name, _content(measured.model), text, measured.trace.arguments, tuple(phases))


def expected(pipe: Any, call: Mapping[str, Any], target: Target = HERE) -> Expected:
    """The prediction for `call` of `pipe` as it is now: of the plan that is applied, or else by a dry run."""
    from memplan.applier import applied, check_free

    done = applied(pipe)
    if done is not None:
        known = _applied.get(done)
        return (
            _for_this(known, pipe, call)
            if known
            else Expected(plan=done.plan, why_none="it was applied without a bill")
        )
    try:
        check_free(pipe)
        with libraries_quiet():
            return of_plan(planner.draw(facts(pipe, call, target=target), ()))
    except NoGpu as error:
        return Expected(why_none=error.why)
    except MemplanError as error:
        return Expected(why_none=str(error))
    except Exception as error:  # a dry run runs the pipeline's own code: it may fail in any way
        return Expected(why_none=f"the dry run failed with {type(error).__name__}: {error}")


def _for_this(known: Expected, pipe: Any, call: Mapping[str, Any]) -> Expected:
    """The prediction, if it was made for a call like this one: other texts are taken for as long."""
    from memplan.probes.trace import show

    if known.why_none:
        return known
    defaults = {name: show(p.default) for name, p in signature(type(pipe).__call__).parameters.items()}
    planned, now = (_counted(dict(one)) for one in (known.call, words(call)))
    left = {name for name in SIZES if name not in now and defaults.get(name, NONE) == NONE}  # the pipeline chooses them
    usual = defaults | {"prompt": TEXT}
    names = [name for name in {**planned, **now} if name not in left]
    others = [f"{n}={now[n]}" if n in now else f"no {n}" for n in names if _of(planned, usual, n) != _of(now, usual, n)]
    if not others:
        return known
    why = f"the plan that is applied was made for another call, without {', '.join(others)}"
    return replace(known, phases=(), why_none=why)


def words(call: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Arguments as people read them."""
    from memplan.probes.trace import show
    from memplan.probes.trace.inputs import describe

    return tuple((name, describe(value, invented=False) or show(value)) for name, value in call.items())


def _counted(shown: Mapping[str, str]) -> dict[str, str]:
    return {n: TEXT if "prompt" in n and text.startswith(("'", '"')) else text for n, text in shown.items()}


def _of(given: Mapping[str, str], usual: Mapping[str, str], name: str) -> str:
    return given.get(name, usual.get(name, NONE))


def _content(model: Model) -> str:
    weights = [[c.name, c.class_name, [(w.name, w.numel, w.dtype) for w in c.weights]] for c in model.components]
    return hashlib.sha256(json.dumps(weights).encode()).hexdigest()[:32]
