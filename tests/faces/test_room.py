"""A plan is held against the memory that is free when it is about to be used."""

import logging
from dataclasses import replace
from typing import Any

import pytest

import memplan
from memplan.errors import NothingFits
from memplan.faces import live, room
from memplan.faces.api import HERE, named
from memplan.faces.room import at_most, standing
from memplan.facts import GIB, Host, Machine
from memplan.planner import Plan
from tests.faces import small
from tests.pipelines import build, inputs

GONE = "Nothing has been changed."


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what is free by now, in GiB."""

    def sets(vram: float, ram: float) -> None:
        monkeypatch.setattr(room, "machine", lambda _: small.machine(vram, ram))

    return sets


def picked(vram: float) -> Plan:
    plan = small.found(vram).pick("quality")
    assert plan is not None
    return plan


def test_a_plan_that_still_fits_is_taken(now: Any) -> None:
    plan = picked(24)
    now(20, 32)
    assert standing(plan, HERE, "quality", undone=GONE) is plan


def test_where_device_memory_has_shrunk_the_pick_for_what_is_left_is_taken(
    now: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plan = picked(24)
    now(5, 32)
    other = standing(plan, HERE, "quality", undone=GONE)
    assert other.bill.peak.memory.required <= 5 * GIB < plan.bill.peak.memory.required
    assert str(other) == str(small.found(5).pick("quality"))
    (said,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert said.startswith("everything on the GPU needs ")
    assert said.endswith(" takes its place.")
    assert "more than the 5.00 GiB there are by now" in said


def test_a_plan_that_was_named_is_refused_with_the_figures(now: Any) -> None:
    plan = named(small.facts(24), ["vae_tiling:vae"])
    now(5, 32)
    with pytest.raises(
        NothingFits, match=r"of device memory in .*, [\d,]+ MiB more than the 5.00 GiB there are\. Nothing"
    ):
        standing(plan, HERE, undone=GONE)


def test_host_memory_is_held_against_what_this_machine_has_and_not_only_the_target(now: Any) -> None:
    plan = named(small.facts(24, 64), ["model_offload"])
    assert plan.fits
    now(24, 1)
    with pytest.raises(
        NothingFits, match=r"GiB of host memory, [\d,]+ MiB more than the 1.00 GiB there are\. .*force=True"
    ):
        standing(plan, HERE, undone=GONE)


def test_force_takes_it_and_says_what_is_short(now: Any, caplog: pytest.LogCaptureFixture) -> None:
    plan = named(small.facts(2), ["model_offload"])
    assert not plan.fits
    assert standing(plan, HERE, undone=GONE, force=True) is plan
    assert "it is used all the same" in caplog.text


def test_a_machine_without_a_card_bounds_host_memory_alone() -> None:
    measured = small.facts(8, 32)
    bounded = at_most(measured, Machine(None, Host(GIB, GIB, pinnable=GIB // 2))).machine
    assert bounded.gpu == measured.machine.gpu
    assert (bounded.ram, bounded.pinnable) == (GIB, GIB // 2)
    roomier = replace(small.machine(80, 80), host=Host(80 * GIB, 80 * GIB))
    assert at_most(measured, roomier).machine == measured.machine


def test_auto_optimize_changes_nothing_where_this_machine_lacks_host_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = build("sd15")
    monkeypatch.setattr(room, "machine", lambda _: Machine(None, Host(GIB, GIB // 8)))
    monkeypatch.setattr(live, "facts", lambda *_, **__: small.facts(24, 64))
    monkeypatch.setattr(live, "_in_place", lambda measured, _: measured)
    with pytest.raises(NothingFits, match=r"more than the 128 MiB there are\. Nothing has been changed"):
        memplan.auto_optimize(pipe, "model_offload", device="cpu", **inputs("sd15"))
    assert memplan.applied(pipe) is None
