"""On a real device: what the allocator reports of each plan is what the bill says."""

from typing import Any

import pytest
import torch

from memplan import planner
from memplan.faces import api
from memplan.run import Run
from tests.accuracy import gpu
from tests.measured_facts import facts_of
from tests.pipelines import build
from tests.some import some

ALLOCATED, RESERVED = 0.04, 0.06


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("plan", gpu.PLANS)
@pytest.mark.parametrize("family", some(gpu.FAMILIES, "flux", "sdxl"))
def test_the_allocator_reports_what_the_bill_says(family: str, plan: str) -> None:
    found = gpu.run(family, plan)
    if found is None:
        pytest.skip(f"{plan} does not apply to {family}")
    allocated, reserved = found.errors
    assert abs(allocated) <= ALLOCATED, found
    assert abs(reserved) <= RESERVED, found


@pytest.mark.parametrize("words", gpu.PLANS)
def test_each_plan_places_every_component(words: str) -> None:
    facts = facts_of(build("flux"))
    plan = gpu._plan(facts, words)
    assert plan is not None
    assert plan.run.placements.keys() == {component.name for component in facts.model.components}
    assert planner.seated(facts, plan.strategies).run == plan.run != Run(facts)


def test_the_last_call_is_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device and what it reports are made up here; all else is as it is on one."""
    reports = iter([(10, 20), (3, 5)])
    facts = facts_of(build("flux"))
    monkeypatch.setattr(api, "facts", lambda *_: facts)
    monkeypatch.setattr(gpu, "_peaks", lambda *_: next(reports))
    applied: list[Any] = []

    def apply(strategies: Any, pipe: Any, device: str) -> torch.no_grad:
        applied.append((strategies, device))
        return torch.no_grad()

    monkeypatch.setattr(gpu, "apply", apply)
    found = gpu.run("flux", "model_offload", "tiny")
    assert found is not None
    assert found.measured == (3, 5)
    assert found.errors == (found.predicted[0] / 3 - 1, found.predicted[1] / 5 - 1)
    assert [device for _, device in applied] == ["cuda"]
