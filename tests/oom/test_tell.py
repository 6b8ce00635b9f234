"""The whole answer: what is printed, what is written, the plan and its code; and that it never hides the error."""

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

import memplan
from memplan.faces.oom import answer as answers
from memplan.faces.oom import held
from memplan.faces.oom.answer import diagnosis
from memplan.faces.oom.cause import out_of_memory
from memplan.faces.oom.tell import tell
from memplan.facts import GIB, MIB
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


# ---- other pipelines -------------------------------------------------------------------------------------------------
def test_a_modular_pipeline_is_found_with_its_call(no_plan: None) -> None:
    pipe, call = build("modular_flux"), inputs("modular_flux")
    found = out_of_memory(limit.run_out(pipe, call, "denoising", 2, 7)[0])
    assert found is not None
    told, scene = diagnosis(*found)
    assert (told.place.phase, told.place.step, told.place.steps) == ("denoising", 2, 2)
    assert scene.pipe is pipe
    assert scene.call == {name: call[name] for name in call if name not in ("generator", "output")}


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
