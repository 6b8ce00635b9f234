"""The timeline agrees with the bill: the same peak of each phase, the same seconds, the same host memory."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest

from memplan.facts import Facts
from memplan.planner import Plan, draw
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.registry import parse_plan
from memplan.simulator import Stretch, timeline
from tests.faces import small
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs

PLACES = (
    "",
    "model_offload",
    "sequential_offload",
    "group_offload:transformer",
    "group_offload:transformer,level=block_level,blocks=1,stream=true",
    "group_offload:transformer,stream=true,low_cpu_mem=true",
    "partial_residency:transformer,streamed=2",
    "on_cpu:text_encoder",
    "on_demand:transformer",
    "layerwise_casting:transformer",
    "bnb_4bit:transformer + model_offload",
    "int8_weight_only:transformer + partial_residency:transformer,streamed=2",
    "vae_tiling + model_offload",
    "first_block_cache:transformer,share=0.5",
    "compile:transformer,mode=reduce-overhead",
)


def check(plan: Plan) -> None:
    """The law: what is drawn is what was priced."""
    bill, drawn = plan.bill, timeline(plan.run)
    assert drawn[-1].end == pytest.approx(bill.seconds + bill.encoding, rel=1e-9)
    assert all(before.end == after.begin for before, after in pairwise(drawn))
    for peak in bill.peaks:
        own = [s for s in drawn if (s.call.phase, s.call.component) == (peak.phase, peak.component)]
        highest = max(own, key=lambda s: s.required)
        assert highest.required == peak.memory.required
        assert made_of(highest) == (peak.weights, peak.copies, peak.activations)
        assert highest.beside - highest.unused - highest.context + held(highest) == peak.memory.allocated
        assert max(s.host for s in own) == peak.host
    for stretch in drawn:
        check_moments(stretch)


def check_moments(stretch: Stretch) -> None:
    """Moments follow one another until the call is over, and nothing held or busy is negative or too long."""
    moments, seconds = stretch.course.moments, stretch.seconds
    ends = [moment.end for moment in moments]
    assert len(moments) == len(stretch.call.segments)
    assert ends == sorted(ends)
    assert ends[-1] == seconds
    assert all(min(m.weights, m.copies, m.activations) >= 0 for m in moments)
    assert min(stretch.unused, stretch.workspace, stretch.base, *stretch.others.values(), 0) == 0
    for lane in (stretch.course.device, stretch.course.host, stretch.course.link):
        assert sum(end - begin for begin, end in lane) <= seconds * (1 + 1e-9)
        assert all(a[1] <= b[0] + 1e-9 for a, b in pairwise(lane))


def made_of(stretch: Stretch) -> tuple[int, int, int]:
    highest = max(stretch.course.moments, key=lambda moment: moment.held)
    weights = highest.weights + sum(stretch.others.values())
    return weights, highest.copies, highest.activations + stretch.base


def held(stretch: Stretch) -> int:
    return max(moment.held for moment in stretch.course.moments)


def plans(facts: Facts, texts: Iterable[str]) -> list[Plan]:
    """Those of the plans that this pipeline can have."""
    return [draw(facts, parse_plan(text, facts) if text else ()) for text in texts]


def test_every_plan_of_a_front_is_drawn_as_it_is_priced() -> None:
    found = small.found(vram=6)
    assert len(found.front) > 10
    for plan in found.front:
        check(plan)


@pytest.fixture(scope="module")
def facts() -> Facts:
    pipe = build("flux")
    return replace(facts_of(pipe), trace=dry_run(open_pipeline(pipe), inputs("flux")))


@pytest.mark.parametrize("text", PLACES)
def test_a_real_dry_run_is_drawn_as_it_is_priced(facts: Facts, text: str) -> None:
    (plan,) = plans(facts, [text])
    assert not text or plan.bill != draw(facts, ()).bill
    check(plan)


def test_weights_come_and_go_as_groups_do(facts: Facts) -> None:
    resident, grouped = plans(facts, ["", "group_offload:transformer,level=leaf_level"])
    there, moving = (
        {m.weights for s in timeline(plan.run) if s.call.component == "transformer" for m in s.course.moments}
        for plan in (resident, grouped)
    )
    assert len(there) == 1
    assert len(moving) > 5
    assert max(moving) < min(there)


def test_the_link_is_busy_where_groups_are_copied(facts: Facts) -> None:
    resident, streamed = plans(facts, ["", "group_offload:transformer,stream=true"])
    copied = [
        sum(s.repeat * (end - begin) for s in timeline(plan.run) for begin, end in s.course.link)
        for plan in (resident, streamed)
    ]
    assert copied[0] == 0
    moved = streamed.bill.traffic.to_device / facts.machine.rates.pinned
    assert copied[1] == pytest.approx(moved, rel=1e-6)


def test_a_new_prompt_is_drawn_where_prompts_are_kept(facts: Facts) -> None:
    (plan,) = plans(facts, ["prompt_reuse"])
    assert plan.bill.encoding > 0
    assert any(s.call.phase == "text encoding" for s in timeline(plan.run))
    check(plan)
