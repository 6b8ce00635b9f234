"""The whole answer: what is printed, what is written, the plan and its code; and that it never hides the error."""

import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import memplan
from memplan import BadInput
from memplan.faces.oom import answer as answers
from memplan.faces.oom import held
from memplan.faces.oom.answer import Answer, diagnosis
from memplan.faces.oom.cause import out_of_memory
from memplan.faces.oom.held import Held
from memplan.faces.oom.tell import tell
from memplan.faces.report import oom as report
from memplan.facts import GIB, MIB
from memplan.oom import Allocation
from tests.oom import limit
from tests.pipelines import build, inputs
from tests.test_strategy_laws import attributes

LARGE = (
    "CUDA out of memory. Tried to allocate 3.00 MiB. GPU 0 has a total capacity of 8.00 GiB of which 1.00 MiB is free."
)


@pytest.fixture
def no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the dry run."""
    monkeypatch.setattr(answers, "fitting", lambda *_: (_ for _ in ()).throw(memplan.NothingFits("nothing fits")))


@pytest.mark.slow
def test_the_whole_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "there", lambda tensor, kind, index: kind == "cuda" and index == 0)
    pipe, error = limit.failed_decode()
    assert tell(error, json=tmp_path / "answer.json")
    said = capsys.readouterr().err
    assert said.splitlines()[1].startswith("memplan: The memory of cuda:0 ran out in decoding, at vae.decoder.")
    assert " bytes short" in said
    assert "by process 4711" in said
    assert f"{sum(p.nbytes for p in pipe.vae.parameters()) / MIB:,.0f} MiB" in said
    found = json.loads((tmp_path / "answer.json").read_text("utf-8"))
    assert found["pipeline"] == "FluxPipeline"
    assert found["place"]["phase"] == "decoding"
    assert found["held"]["weights"].keys() == {"transformer", "text_encoder", "text_encoder_2", "vae"}
    assert found["allocation"]["others"] == [{"pid": limit.OTHER, "nbytes": round(7.41 * GIB)}]
    assert found["plan"]["vram"] <= limit.ROOM
    assert found["plan"]["strategies"]
    assert all(line in said for line in found["plan"]["code"].splitlines())
    compile(found["plan"]["code"], "the code", "exec")
    assert found["why_none"] == ""


def test_the_call_is_told_to_programs_in_values() -> None:
    call = (("prompt", "'a dog'"), ("height", "64"), ("scale", "3.5"), ("image", "tensor(1, 3)"))
    told = json.loads(report.as_json(Answer("an error", Allocation(), call=call)))["call"]
    assert told == {"prompt": "a dog", "height": 64, "scale": 3.5, "image": "tensor(1, 3)"}


# ---- loading ---------------------------------------------------------------------------------------------------------
def test_moving_a_pipeline_is_loading(monkeypatch: pytest.MonkeyPatch, no_plan: None) -> None:
    pipe = build("flux")

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError(limit.text(6 * MIB, 8 * MIB, 2 * MIB))

    monkeypatch.setattr(pipe.transformer.proj_out, "_apply", full)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        pipe.to("cpu")
    found = out_of_memory(caught.value)
    assert found is not None
    told, scene = diagnosis(*found)
    assert told.place.phase == "loading"
    assert told.place.component == "transformer"
    assert scene.pipe is pipe
    assert told.failed.missing == 4 * MIB


def test_a_folder_being_loaded_is_planned_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import AutoencoderKL, FluxPipeline

    pipe = build("flux")
    pipe.save_pretrained(tmp_path)
    del pipe

    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(AutoencoderKL, "from_pretrained", full)
    with pytest.raises(MemoryError) as caught:
        FluxPipeline.from_pretrained(str(tmp_path), torch_dtype=torch.bfloat16)
    found = out_of_memory(caught.value)
    assert found is not None
    told, scene = diagnosis(*found)
    assert told.place.phase == "loading"
    assert told.failed.kind == "host"
    assert (scene.source, scene.dtype) == (str(tmp_path), "bfloat16")


# ---- the guard -------------------------------------------------------------------------------------------------------
def test_a_guard_answers_and_raises_on(capsys: pytest.CaptureFixture[str], no_plan: None) -> None:
    error = torch.OutOfMemoryError(LARGE)
    with pytest.raises(torch.OutOfMemoryError) as caught, memplan.guard(), memplan.guard():
        raise error
    assert caught.value is error
    said = capsys.readouterr().err
    assert said.count("memplan: The memory of cuda:0 ran out") == 1  # the outer guard sees that it was answered
    assert "2 MiB short" in said


def test_an_error_raised_from_a_lack_of_memory_is_answered(capsys: pytest.CaptureFixture[str], no_plan: None) -> None:
    with pytest.raises(RuntimeError, match="the picture failed"), memplan.guard():
        raise RuntimeError("the picture failed") from MemoryError()
    assert "memplan: Host memory ran out" in capsys.readouterr().err


def test_an_error_in_a_group_is_answered(capsys: pytest.CaptureFixture[str], no_plan: None) -> None:
    group = ExceptionGroup("tasks", [ValueError("no"), ExceptionGroup("more", [torch.OutOfMemoryError(LARGE)])])
    with pytest.raises(ExceptionGroup), memplan.guard():
        raise group
    assert capsys.readouterr().err.count("memplan: The memory of cuda:0 ran out") == 1
    assert out_of_memory(BaseExceptionGroup("tasks", [KeyboardInterrupt(), MemoryError()])) is None


def test_an_answered_error_is_answered_once_though_another_is_raised_from_it(
    capsys: pytest.CaptureFixture[str], no_plan: None
) -> None:
    def fails() -> None:
        try:
            with memplan.guard():
                raise MemoryError
        except MemoryError as error:
            raise RuntimeError("the picture failed") from error

    with pytest.raises(RuntimeError, match="the picture failed"), memplan.guard():
        fails()
    assert capsys.readouterr().err.count("memplan: Host memory ran out") == 1


def test_the_file_is_written_by_whoever_was_given_one_where_the_program_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_plan: None
) -> None:
    def goes_elsewhere() -> None:
        monkeypatch.chdir(tmp_path / "inner")
        raise MemoryError

    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MemoryError), memplan.guard(json="answer.json"), memplan.guard():
        goes_elsewhere()
    assert json.loads((tmp_path / "answer.json").read_text("utf-8"))["error"] == "MemoryError"
    assert not list((tmp_path / "inner").iterdir())


def test_an_error_without_a_text_is_its_programs_own() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert out_of_memory(Mute()) is None


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3), ValueError("out of memory"), OSError(28, "full")]
)
def test_others_pass_untouched(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error)) as caught, memplan.guard():
        raise error
    assert caught.value is error
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("ours", [ZeroDivisionError("ours"), MemoryError(), SystemExit(5), KeyboardInterrupt()])
def test_our_own_failure_is_one_line(
    ours: BaseException, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ours

    monkeypatch.setattr(answers, "diagnosis", broken)
    error = MemoryError()
    with pytest.raises(MemoryError) as caught, memplan.guard():
        raise error
    assert caught.value is error
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("memplan: ")


def test_a_closed_stderr_hides_nothing(monkeypatch: pytest.MonkeyPatch, no_plan: None) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with pytest.raises(MemoryError), memplan.guard():
        raise MemoryError


@pytest.mark.parametrize(
    "raised", [BrokenPipeError(), ValueError("closed"), UnicodeEncodeError("ascii", "…", 0, 1, "no")]
)
def test_a_stderr_that_fails_hides_nothing(
    raised: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_plan: None
) -> None:
    class Broken:
        def write(self, text: str) -> None:
            raise raised

    monkeypatch.setattr("sys.stderr", Broken())
    with pytest.raises(MemoryError), memplan.guard(json=tmp_path / "answer.json"):
        raise MemoryError
    assert (tmp_path / "answer.json").exists()


# ---- figures ---------------------------------------------------------------------------------------------------------
def test_what_was_held_and_free_is_all_that_the_card_has() -> None:
    """Though the driver names no other process, as inside a container."""
    failed = Allocation(
        "cuda", 0, 2 * GIB, 24 * GIB, GIB, allocated=9 * GIB, unallocated=3 * GIB, in_use=13 * GIB
    )  # fmt: skip
    said = " ".join(report.diagnosis(Answer("an error", failed, held=Held((("unet", 5 * GIB),), 4 * GIB))).split())
    assert "1.00 GiB of 24.00 GiB were free" in said
    for part in (
        "5.00 GiB of weights",
        "4.00 GiB of activations",
        "3.00 GiB reserved by PyTorch",
        "1.00 GiB by this process beside PyTorch",
        "10.00 GiB by processes that the error does not name",
    ):
        assert part in said
    assert "does not name" not in report.diagnosis(Answer("an error", replace(failed, in_use=None)))


# ---- other pipelines -------------------------------------------------------------------------------------------------
def test_a_modular_pipeline_is_found_with_its_call(no_plan: None) -> None:
    pipe, call = build("modular_flux"), inputs("modular_flux")
    found = out_of_memory(limit.run_out(pipe, call, "denoising", 2, 7)[0])
    assert found is not None
    told, scene = diagnosis(*found)
    assert (told.place.phase, told.place.step, told.place.steps) == ("denoising", 2, 2)
    assert scene.pipe is pipe
    assert scene.call == {name: call[name] for name in call if name not in ("generator", "output")}


def test_of_several_pipelines_it_is_the_one_whose_component_ran(no_plan: None) -> None:
    pipes = [build("flux"), build("flux")]

    def decodes(one: Any, two: Any, part: Any) -> None:  # the error passes where both are in hand
        part.decode(torch.zeros(1, 4, 8, 8))

    for pipe in pipes:
        with (
            limit.watched(pipe) as where,
            pytest.raises(torch.OutOfMemoryError) as caught,
            limit.Limit(where, "decoding", 0, 2),
        ):
            decodes(pipes[0], pipes[1], pipe.vae)
        found = out_of_memory(caught.value)
        assert found is not None
        told, scene = diagnosis(*found)
        assert scene.pipe is pipe
        assert told.place.path.startswith("vae.")
        assert {*map(id, scene.pipes)} >= {*map(id, pipes)}


# ---- what is alive ---------------------------------------------------------------------------------------------------
def test_a_pipeline_with_a_plan_is_left_as_it_is_and_kept_by_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    pipe = build("flux")
    applied = memplan.auto_optimize(
        pipe, "group_offload:transformer", target=memplan.Target(vram=24, ram=64), device="cpu", **inputs("flux")
    )
    error = limit.run_out(pipe, inputs("flux"), "denoising", 2, 9)[0]
    before = attributes(pipe)
    assert tell(error)
    assert "ran out in denoising, step 2 of 2, at transformer." in " ".join(capsys.readouterr().err.split())
    assert attributes(pipe) == before
    applied.undo()
    gone = weakref.ref(pipe)
    del pipe, applied, error, before
    gc.collect()
    assert gone() is None


def test_a_guard_of_what_is_no_pipeline_is_refused() -> None:
    with pytest.raises(BadInput, match="a guard is that of a pipeline, and str is none"), memplan.guard("pipe"):
        pass
