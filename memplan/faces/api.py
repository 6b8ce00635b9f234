"""The Python face: probe, recommend and price take the arguments of the pipeline itself."""

from collections.abc import Sequence
from typing import Any

from memplan import planner
from memplan.errors import BadInput
from memplan.faces.measuring import PROMPT, Progress, facts, probe
from memplan.faces.sampling.asked import checked as asked_to_keep
from memplan.faces.target import HERE, Target, machine, numbered, of_kind
from memplan.faces.training import checked, weighed
from memplan.facts import Differentiable, Facts, Purpose, Training
from memplan.planner import Plan, Recommendation
from memplan.registry import check_names, parse, parse_plan, strategies, switches
from memplan.strategy import Decision, Strategy

__all__ = [
    "HERE",
    "PROMPT",
    "Progress",
    "Target",
    "facts",
    "listed",
    "machine",
    "named",
    "numbered",
    "of_kind",
    "placed",
    "price",
    "probe",
    "recommend",
]


def recommend(
    source: Any,
    *,
    target: Target = HERE,
    dtype: str | None = None,
    variant: str = "",
    cache: bool = True,
    progress: Progress | None = None,
    train: Training | None = None,
    differentiable: Differentiable | None = None,
    **call: Any,
) -> Recommendation:
    """Weigh every plan for this pipeline, call and machine, or with `train` for a training step of its denoiser.

    With `differentiable` the call is one inside of `memplan.differentiable()`, which keeps gradients.
    `call` are the arguments of the pipeline itself: prompt, height, num_frames … A module takes those of its forward();
    of modules by name each that runs takes a table of its own, as in `net={"input": x}`. Raises BadInput for a source,
    an argument or a machine that does not exist.
    """
    train, keeps = checked(train), asked_to_keep(differentiable, train)
    asked = weighed(Purpose.TRAINING if train else Purpose.GRADIENTS if keeps else Purpose.CALLS)
    measured = facts(
        source,
        call,
        target=target,
        dtype=dtype,
        variant=variant,
        cache=cache,
        progress=progress,
        switches=asked,
        train=train,
        differentiable=keeps,
    )
    if progress:
        progress("weighing plans")
    return planner.recommend(measured, strategies())


def price(
    source: Any,
    plan: Plan | str | Sequence[str | Strategy],
    *,
    target: Target = HERE,
    dtype: str | None = None,
    variant: str = "",
    cache: bool = True,
    progress: Progress | None = None,
    train: Training | None = None,
    differentiable: Differentiable | None = None,
    **call: Any,
) -> Plan:
    """The bill of a plan: text as a report writes it, e.g. "vae_tiling:vae + model_offload", parts of it, or a Plan.

    Components without a placement stay on the device. Raises BadInput when a strategy refuses to join, in its words.
    """
    parts, train, keeps = listed(plan), checked(train), asked_to_keep(differentiable, train)
    asked = switches(parts)
    measured = facts(
        source,
        call,
        target=target,
        dtype=dtype,
        variant=variant,
        cache=cache,
        progress=progress,
        switches=asked,
        train=train,
        differentiable=keeps,
    )
    return named(measured, parts)


def listed(plan: Any) -> Sequence[str | Strategy]:
    """A plan's parts. Raises BadInput for what is none, and for a strategy that is not installed."""
    parts = plan.strategies if isinstance(plan, Plan) else [plan] if isinstance(plan, str | Strategy) else plan
    if not (isinstance(parts, Sequence) and all(isinstance(part, str | Strategy) for part in parts)):
        raise BadInput(f'the plan is a {type(plan).__name__}: give text, as "vae_tiling:vae + model_offload"')
    for text in parts:
        if isinstance(text, str):
            check_names(text)
    return parts


def named(measured: Facts, plan: Sequence[str | Strategy]) -> Plan:
    """The plan that is named, for what is measured. Raises BadInput as `price` does."""
    chosen = (parse_plan(s, measured) if isinstance(s, str) else (s,) for s in plan)
    return planner.seated(measured, [strategy for part in chosen for strategy in part])


def placed(plan: Plan) -> list[Strategy]:
    """The plan's strategies, and on the device what it gives no place."""
    measured = plan.run.facts
    named = {seat.component for s in plan.strategies for seat in s.seats if seat.decision is Decision.PLACEMENT}
    stay = [part.name for part in measured.model.components if part.name not in named]
    return [*plan.strategies, *(parse(f"on_gpu:{name}", measured) for name in stay)]
