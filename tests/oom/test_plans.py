"""The plan that would have fitted: for which memory it is made, what is said where there is none, and its code."""

from dataclasses import replace
from pathlib import Path

import pytest

from memplan.faces import measuring, target
from memplan.faces.oom import planning
from memplan.faces.oom.answer import Answer, diagnosis, with_plan
from memplan.faces.oom.cause import out_of_memory
from memplan.faces.oom.scene import Scene
from memplan.facts import GIB, MIB, Gpu, Host, Learned, Machine
from memplan.oom import Allocation
from tests.faces import small
from tests.oom import limit
from tests.pipelines import build, inputs

LARGE = (
    "CUDA out of memory. Tried to allocate 3.00 MiB. GPU 0 has a total capacity of 8.00 GiB of which 1.00 MiB is free."
)


@pytest.mark.slow
@pytest.mark.wide
def test_a_plan_takes_less_than_a_run_that_failed_though_it_was_predicted_to_fit() -> None:
    pipe, error = limit.failed_decode()
    error.args = (LARGE,)
    found = out_of_memory(error)
    assert found is not None
    told = with_plan(*diagnosis(*found))
    assert told.plan is not None
    assert told.predicted is not None
    assert told.plan.bill.peak.memory.required <= told.predicted - 2 * MIB
    assert told.pipeline == type(pipe).__name__


def test_planning_that_fails_or_takes_too_long_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    _, error = limit.failed_decode()
    found = out_of_memory(error)
    assert found is not None
    told = with_plan(*diagnosis(*found), patience=0.0)
    assert told.plan is None
    assert told.why_none == "planning was given up after 0 s, at reading the pipeline"
    monkeypatch.setattr(measuring, "facts", lambda *_, **__: 1 / 0)
    told = with_plan(*diagnosis(*found))
    assert told.why_none == "planning failed with ZeroDivisionError: division by zero"
    assert told.place.phase == "decoding"


def test_the_card_that_is_here_is_planned_for_with_the_figures_of_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Machine(Gpu("a card", 24 * GIB, 20 * GIB, capability=(8, 9)), Host(32 * GIB, 32 * GIB))
    monkeypatch.setattr(target, "probe_machine", lambda *_: here)
    room = limit.ROOM + 8 * MIB
    failed = Allocation("rocm", 0, 4 * MIB, limit.CARD, 2 * MIB, in_use=room - 2 * MIB)
    found = planning.fitting(Scene((build("flux"),), inputs("flux"), called=True), failed)
    gpu = found.plan.run.facts.machine.gpu
    assert gpu is not None
    assert (gpu.name, gpu.total, gpu.free, gpu.kind) == ("a card", limit.CARD, room, "rocm")
    assert found.plan.fits
    assert found.failed is None


def test_what_is_kept_free_for_earlier_runs_is_taken_off_once() -> None:
    measured = small.facts(vram=24)
    taught = replace(measured, machine=replace(measured.machine, learned=Learned(1, 1, 3 * GIB)))
    failed = Allocation("cuda", asked=2 * GIB)
    assert planning._below(taught, 12 * GIB, failed).machine.vram == 10 * GIB
    assert planning._below(taught, 40 * GIB, failed).machine.vram == taught.machine.vram == 21 * GIB


def test_without_a_card_and_figures_there_is_no_plan() -> None:
    at = Scene((build("flux"),), inputs("flux"))
    told = with_plan(Answer("MemoryError", Allocation("host", asked=GIB)), at)
    assert (told.plan, told.why_none) == (None, "No GPU is visible here, and the error has no figures of one.")


@pytest.mark.slow
@pytest.mark.wide
@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3", "wan", "ltx"])
def test_there_is_a_plan_for_more_pipelines(name: str) -> None:
    error = limit.run_out(build(name), inputs(name), "denoising", 1, 5)[0]
    found = out_of_memory(error)
    assert found is not None
    told = with_plan(*diagnosis(*found))
    assert told.plan is not None, told.why_none
    assert told.plan.fits
    compile(told.code, "the code", "exec")


@pytest.mark.slow
@pytest.mark.wide
def test_where_nothing_fits_the_nearest_plan_is_named() -> None:
    found = out_of_memory(limit.run_out(build("cogvideox"), inputs("cogvideox"), "denoising", 1, 5)[0])
    assert found is not None
    told = with_plan(*diagnosis(*found))
    assert told.plan is None
    assert told.why_none.startswith("no plan fits; the nearest, sequential_offload, needs 604 MiB of device memory in")


@pytest.mark.slow
@pytest.mark.wide
def test_what_was_loaded_from_a_folder_gets_the_whole_script(tmp_path: Path) -> None:
    from diffusers import FluxPipeline

    build("flux").save_pretrained(tmp_path)
    pipe = FluxPipeline.from_pretrained(str(tmp_path))
    pipe.set_progress_bar_config(disable=True)
    found = out_of_memory(limit.run_out(pipe, inputs("flux"), "decoding", 0, 3)[0])
    assert found is not None
    told = with_plan(*diagnosis(*found))
    assert told.whole
    compile(told.code, "the script", "exec")
    assert "pipe = FluxPipeline.from_pretrained(" in told.code
    assert f'"{tmp_path}"' in told.code
    assert "    height=32,\n" in told.code
