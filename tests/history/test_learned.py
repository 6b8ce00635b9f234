"""What runs took beyond their predictions is kept free, where a GPU measured it on this card with these versions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import memplan
from memplan import planner
from memplan.faces import measuring, store
from memplan.faces.history import database
from memplan.faces.history.expected import of_plan
from memplan.faces.history.learned import with_learned
from memplan.faces.history.record import Figures, Phase
from memplan.faces.report import hardware
from memplan.faces.report import json as as_json
from memplan.facts import GIB, MIB, Learned, Limits
from memplan.registry import strategies
from tests.faces import small
from tests.history.runs import HERE, run

MACHINE, MODEL = small.machine(8, 32), small.facts().model


def learned() -> Learned:
    return with_learned(MACHINE, MODEL).learned


def test_the_worst_excess_counts(cache: Path) -> None:
    assert learned() == Learned()
    for more in (0, 90, 200, -50):
        database.save(run(more=more))
    assert learned() == Learned(4, 2, 220 * MIB)  # of reserved memory, which is a tenth more


def test_a_folder_that_may_not_be_looked_into_teaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", forbidden)
    with pytest.warns(UserWarning, match="no measured runs are known"):
        assert learned() == Learned()


ELSEWHERE: dict[str, dict[str, Any]] = {
    "on the CPU": {"device": "cpu"},
    "without a prediction": {"why_none": "a reason"},
    "another card": {"place": replace(HERE, card="another")},
    "another torch": {"place": replace(HERE, torch="1.0")},
    "another diffusers": {"place": replace(HERE, diffusers="0.1")},
    "another memplan": {"place": replace(HERE, memplan="9")},
    "another class": {"class_name": "OtherPipeline"},
}


@pytest.mark.parametrize("changes", ELSEWHERE.values(), ids=ELSEWHERE)
def test_other_runs_teach_nothing(changes: dict[str, Any]) -> None:
    database.save(run(more=200, **changes))
    assert learned() == Learned()


def test_the_driver_and_the_name_may_differ() -> None:
    database.save(run(more=100, place=replace(HERE, driver="600"), model="a finetune"))
    assert learned().margin == 110 * MIB


def test_what_the_cache_held_before_is_not_counted() -> None:
    assert run(more=100, clean=False).excess == 100 * MIB
    assert run(more=100, beside=30 * MIB).excess == 80 * MIB
    assert run(more=100, beside=GIB).excess == 0
    assert run(phases=()).excess == 0
    assert run(phases=(Phase("decoding", "vae", Figures(), Figures(GIB)),)).excess == 0


def test_it_is_kept_free_and_said() -> None:
    known = replace(MACHINE, learned=Learned(4, 2, 100 * MIB + 1))
    assert known.vram == MACHINE.vram - 100 * MIB - 1
    assert "2 of 4 runs here took up to 101 MiB more than predicted: kept free" in "\n".join(hardware.machine(known))
    one = replace(MACHINE, learned=Learned(1, 1, MIB))
    assert "a run here took 1 MiB more than predicted: kept free" in "\n".join(hardware.machine(one))
    assert json.loads(as_json.probe(known, None))["machine"]["learned"] == {
        "runs": 4, "over": 2, "margin": 100 * MIB + 1, "pace": 1.0
    }  # fmt: skip
    assert "more than predicted" not in "\n".join(hardware.machine(MACHINE))


def slow(number: int, seconds: float) -> Any:
    """A run that took so long, where a second was predicted."""
    measured = Figures(300 * MIB, 330 * MIB, seconds, GIB)
    return run(number, phases=(Phase("denoising", "transformer", Figures(300 * MIB, 330 * MIB, 1.0, GIB), measured),))


def test_seconds_are_corrected_by_calls_that_were_made_again() -> None:
    for number, seconds in ((0, 9.0), (1, 2.0), (1, 1.5), (2, 3.0), (2, 1.25), (3, 4.0), (3, 1.75)):
        database.save(slow(number, seconds))
    taught = with_learned(MACHINE, MODEL)
    assert taught.learned == Learned(7, 0, 0, 1.5)
    assert "calls here took 1.50 times as long as predicted: seconds are corrected" in "\n".join(
        hardware.machine(taught)
    )
    facts = small.facts()
    plain = planner.draw(replace(facts, machine=MACHINE), ())
    later = planner.draw(replace(facts, machine=taught), ())
    assert later.bill.seconds == pytest.approx(1.5 * plain.bill.seconds)
    assert [f.seconds for _, _, f in of_plan(later).phases] == pytest.approx([p.seconds for p in plain.bill.peaks])


def test_a_call_that_was_made_once_corrects_no_seconds() -> None:
    database.save(slow(0, 9.0))
    assert learned() == Learned()
    assert run(phases=()).pace is None


def test_plans_leave_it_free() -> None:
    facts, margin = small.facts(vram=10), 3 * GIB
    taught = replace(facts, machine=replace(facts.machine, learned=Learned(1, 1, margin)))
    for _, pick in planner.recommend(taught, strategies()).picks:
        assert pick.bill.peak.memory.required <= 10 * GIB - margin
    everything = planner.draw(facts, ())
    there = planner.draw(taught, ())
    assert (everything.fits, there.fits) == (True, False)
    assert there.margin == everything.margin - margin


def test_a_limit_of_the_users_is_kept_too() -> None:
    facts = small.facts(vram=24)
    limited = replace(facts.machine, limits=Limits(vram=6 * GIB), learned=Learned(1, 1, GIB))
    assert limited.vram == 5 * GIB
    assert limited.vram_limited
    assert not replace(limited, limits=Limits(vram=32 * GIB)).vram_limited
    (short,) = planner.draw(replace(facts, machine=limited), ()).shortages
    assert "more than the 5.00 GiB allowed" in str(short)


def test_recommendations_for_this_machine_use_it_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = small.facts()
    monkeypatch.setattr(measuring, "look", lambda source: source)
    monkeypatch.setattr(measuring, "key", lambda *_, **__: "small")
    monkeypatch.setattr(store, "load", lambda name: (facts.model, facts.trace))
    monkeypatch.setattr(measuring, "machine", lambda target: MACHINE)
    database.save(run(more=200))
    for target, there in (
        (memplan.Target(), Learned(1, 1, 220 * MIB)),
        (memplan.Target(vram=8), Learned()),
        (memplan.Target(gpu="RTX 4070"), Learned()),
    ):
        assert memplan.price("small", [], target=target).run.facts.machine.learned == there
