"""Runs one case in this process and prints what came of it: `python -m tests.accuracy.benchmark.one JSON`."""

import json
import logging
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from inspect import signature
from statistics import median
from time import perf_counter
from typing import Any

import torch

from memplan.errors import BadInput, NothingFits
from memplan.faces import api
from memplan.facts import GIB, Facts
from memplan.planner import Plan
from tests.accuracy.benchmark.case import ABSENT, FAILED, OOM, RAN, Case, Result
from tests.accuracy.benchmark.devices import DEVICES, Device, resident
from tests.accuracy.benchmark.ways import WAYS, Way, carry_out

SMALL = "small:"
MARK = "RESULT "
STAND_IN = api.Target(gpu="RTX 4070")
"""Whose figures a rehearsal plans with; its kind is then the CPU's, which has no streams."""


def main() -> None:
    """Read the case, run it and print the result as JSON behind MARK."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print(MARK + json.dumps(asdict(run(Case(**json.loads(sys.argv[1]))))), flush=True)


@dataclass(frozen=True)
class Ready:
    """A pipeline with the arguments of its call, what memplan measured, and the plan; None where that is not priced."""

    pipe: Any
    call: Mapping[str, Any]
    facts: Facts
    plan: Plan | None


def run(case: Case) -> Result:
    """What came of the case. Out of memory and what libraries raise are outcomes, and raise nothing."""
    way, device = WAYS[case.way], DEVICES[case.device]
    if not way.there:
        return Result(outcome=ABSENT, note=f"{way.package} is not installed here")
    pipe, call = pipeline(case)
    facts = facts_of(case, pipe, call)
    try:
        plan = way.planned(facts) if way.planned else None
        device.cap(case.cap, facts.machine.gpu)
    except (BadInput, NothingFits) as refusal:
        return Result(outcome=FAILED, note=str(refusal))
    return replace(attempt(way, Ready(pipe, call, facts, plan), device, case.calls), **predicted(plan))


def pipeline(case: Case) -> tuple[Any, dict[str, Any]]:
    """The pipeline with random weights in host memory, and the arguments of its call."""
    if case.model.startswith(SMALL):
        from tests.pipelines import build, inputs

        family = case.model.removeprefix(SMALL)
        return build(family), inputs(family) | {"num_inference_steps": case.steps}
    from tests.accuracy.benchmark.weights import full_size

    pipe, call = full_size(case.model)
    takes = signature(type(pipe).__call__).parameters
    every = {"prompt": api.PROMPT, **call, "num_inference_steps": case.steps}
    return pipe, {name: value for name, value in every.items() if name in takes}


def facts_of(case: Case, pipe: Any, call: Mapping[str, Any]) -> Facts:
    """What memplan measures of the call, on this machine with the case's memory."""
    source = pipe if case.model.startswith(SMALL) else case.model
    target = api.HERE if case.device == "cuda" else STAND_IN
    facts = api.facts(source, call, target=target)
    gpu = facts.machine.gpu
    if case.cap and gpu is not None:
        size = int(case.cap * GIB)
        facts = replace(facts, machine=replace(facts.machine, gpu=replace(gpu, total=size, free=size, resized=True)))
    return api.of_kind(case.device, facts)


def predicted(plan: Plan | None) -> dict[str, Any]:
    """The columns that the bill of a plan fills: peaks of the call's phases, seconds, and whether it fits."""
    if plan is None:
        return {}
    bill = plan.bill
    memory = [peak.memory for peak in bill.peaks]
    return {
        "plan": str(plan),
        "predicted_allocated": max(m.allocated for m in memory),
        "predicted_reserved": max(m.reserved for m in memory),
        "predicted_required": bill.peak.memory.required,
        "predicted_host": bill.host.peak,
        "predicted_seconds": bill.seconds,
        "predicted_fits": plan.fits,
        "loss": bill.loss.word,
    }


def attempt(way: Way, ready: Ready, device: Device, calls: int) -> Result:
    """The measured columns: the way is carried out, then the call is made so many times."""
    stage, seconds = "applying", list[float]()
    outcome, note = RAN, ""
    device.reset()
    try:
        carry_out(way, ready.plan, ready.pipe, ready.facts, device.name)
        for number in range(calls):
            stage = f"call {number + 1}"
            seconds.append(timed(ready.pipe, ready.call, device))
    except Exception as error:  # whatever a library raises is an outcome
        cause = error.__cause__ or error
        out = isinstance(cause, torch.OutOfMemoryError)
        outcome, note = (OOM, f"in {stage}") if out else (FAILED, f"in {stage}: {type(cause).__name__}: {cause}")
    allocated, reserved = device.peaks()
    first, steady = seconds[0] if seconds else None, median(seconds[1:]) if seconds[1:] else None
    return Result(
        outcome=outcome, allocated=allocated, reserved=reserved, outside=device.outside(), host=resident(),
        first=first, steady=steady, note=note,
    )  # fmt: skip


def timed(pipe: Any, call: Mapping[str, Any], device: Device) -> float:
    """Seconds of one call, to the end of the device's work."""
    device.wait()
    start = perf_counter()
    pipe(**call)
    device.wait()
    return perf_counter() - start


if __name__ == "__main__":
    main()
