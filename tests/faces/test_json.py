"""The answer for other programs: the documented keys, in bytes."""

import json
from dataclasses import replace
from typing import Any

from memplan.faces.api import named
from memplan.faces.nearest import Nearest
from memplan.faces.report import json as report
from memplan.facts import GIB
from memplan.planner import PREFERENCES, draw
from memplan.registry import parse, typed
from tests.faces import small

PLAN = {
    "strategies", "label", "fits", "too_much", "peak", "phases", "ram", "traffic", "host_flops", "seconds",
    "new_prompt", "first_call", "loss", "margin", "ram_margin", "reason", "irreversible", "assumptions",
}  # fmt: skip


def answer(vram: float = 8, **settings: Any) -> dict[str, Any]:
    return json.loads(report.recommendation(small.found(vram), **settings))


def test_every_documented_key_is_there_and_no_other() -> None:
    data = answer()
    assert set(data) == {
        "schema", "machine", "workload", "plans", "left_out", "picks", "preferred", "dropped", "shortage"
    }  # fmt: skip
    assert all(f"\n    {key} " in (report.__doc__ or "") for key in data)
    assert set(data["picks"]) == set(PREFERENCES)
    assert all(set(plan) == PLAN for plan in [*data["plans"], *data["picks"].values()])
    assert all(f"\n    {key} " in (report.__doc__ or "") for key in PLAN - {"ram_margin"})


def test_sizes_are_bytes_of_the_bill() -> None:
    found = small.found()
    plan, shown = found.pick("memory"), answer()["picks"]["memory"]
    assert plan is not None
    memory = plan.bill.peak.memory
    assert [shown["peak"][k] for k in ("allocated", "reserved", "required")] == [
        memory.allocated, memory.reserved, memory.required
    ]  # fmt: skip
    assert shown["margin"] == plan.margin == 8 * GIB - memory.required
    assert len(shown["phases"]) == len(plan.bill.phases)
    assert shown["phases"][1]["op"] == "aten.mm"


def test_strategies_can_be_typed_again() -> None:
    facts = small.facts()
    for plan in answer(everything=True)["plans"]:
        assert [typed(parse(text, facts), facts) for text in plan["strategies"]] == plan["strategies"]


def test_a_plan_is_written_the_same_however_it_was_asked_for() -> None:
    for plan in answer(everything=True)["plans"]:
        priced = json.loads(report.bill(named(small.facts(), plan["strategies"])))["plan"]
        assert priced["strategies"] == plan["strategies"]
        assert priced["label"] == plan["label"]
        assert priced["peak"] == plan["peak"]


def test_arguments_are_values() -> None:
    shown = (("height", "512"), ("x", "0.5"), ("prompt", "'a cat …'"), ("sigmas", "(1, 0.5)"), ("t", "tensor(1, 7)"))
    trace = replace(small.facts().trace, arguments=shown)
    found = json.loads(report.bill(draw(replace(small.facts(), trace=trace), ())))["workload"]["arguments"]
    assert found == {"height": 512, "x": 0.5, "prompt": "a cat …", "sigmas": [1, 0.5], "t": "tensor(1, 7)"}


def test_every_plan_has_a_reason() -> None:
    assert all(plan["reason"].endswith(".") for plan in answer()["plans"])


def test_all_gives_the_whole_front() -> None:
    found, some, everything = small.found(), answer(), answer(everything=True)
    assert everything["left_out"] == 0
    picks = {plan.strategies for _, plan in found.picks}  # which may be finer than what they were picked from
    assert len(everything["plans"]) == len(some["plans"]) + some["left_out"]
    assert len(everything["plans"]) == len(picks | {plan.strategies for plan in found.front})


def test_when_nothing_fits_the_shortage_is_said() -> None:
    data = answer(vram=1, nearest=Nearest(({"height": 512}, {"height": 768}), {"height": 512}))
    assert data["picks"] == {}
    assert data["shortage"]["memory"] == "device"
    assert data["shortage"]["missing"] == -small.found(1).nearest.margin
    assert data["shortage"]["nearest_call"] == {"height": 512}
    assert data["shortage"]["tried"] == [{"height": 512}, {"height": 768}]


def test_what_cannot_be_undone_is_said() -> None:
    for plan in answer(everything=True)["plans"]:
        assert len(plan["irreversible"]) == ("layerwise_casting" in plan["label"])


def test_a_bill_and_a_probe() -> None:
    facts = small.facts()
    assert set(json.loads(report.bill(draw(facts, ())))) == {"schema", "machine", "workload", "plan"}
    data = json.loads(report.probe(facts.machine, facts.model))
    assert data["model"]["components"][1]["blocks"] == [GIB] * 4
    assert json.loads(report.probe(facts.machine, None))["model"] is None
