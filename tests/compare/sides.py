"""Both sides of a comparison of a small pipeline, without a dry run."""

from typing import Any

from memplan import planner
from memplan.faces.compare.compare import compared
from memplan.faces.compare.comparison import Comparison
from memplan.faces.compare.running import Caller
from memplan.registry import parse_plan
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs

LOSSY = "layerwise_casting:transformer,keep_original=true"


def called(family: str, **changes: Any) -> dict[str, Any]:
    """The arguments of a call without its generator."""
    return {name: value for name, value in (inputs(family) | changes).items() if name != "generator"}


def called_once() -> Any:
    """A pipeline that has what its first call leaves on it."""
    pipe = build("flux")
    pipe(**inputs("flux"))
    return pipe


def both(
    pipe: Any, plan: str, call: dict[str, Any], seeds: tuple[int, ...] = (0,), repeat: int = 0, **asked: bool
) -> Comparison:
    """The comparison without a dry run, as figures of what is predicted are not looked at."""
    facts = facts_of(pipe, kind="cpu")
    plans = planner.draw(facts, ()), planner.draw(facts, parse_plan(plan, facts))
    said = {"predicted": False, "check_undo": False, "lpips": False} | asked
    return compared(Caller(pipe, call, seeds, repeat, lambda message: None), plans, "cpu", **said)
