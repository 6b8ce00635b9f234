"""memplan patch: what it shows and writes, what it plans for, and what it refuses."""

import builtins
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from memplan.__main__ import main
from memplan.faces import api
from memplan.faces.cli import terminal
from memplan.faces.travel.files import save
from memplan.facts import Facts
from tests.patching.models import facts, plan
from tests.patching.table import CASES

OFFLOAD = ("--plan", "model_offload")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Has the Python face measure a made-up SDXL; the value tells what it was asked for."""
    found: dict[str, Any] = {}

    def measured(source: Any, call: Mapping[str, Any], **settings: Any) -> Facts:
        found.update(source=source, call=dict(call), **settings)
        return facts("sdxl")

    monkeypatch.setattr(api, "facts", measured)
    monkeypatch.setattr(terminal, "PATIENCE", 600.0)
    return found


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a case that may be written to."""

    def copied(name: str) -> Path:
        file = tmp_path / f"{name}.py"
        file.write_bytes((CASES / file.name).read_bytes())
        return file

    return copied


Script = Callable[[str], Path]
Out = pytest.CaptureFixture[str]


def test_it_shows_and_writes_nothing(asked: dict[str, Any], script: Script, capsys: Out) -> None:
    file = script("statement")
    before = file.read_bytes()
    assert main(["patch", str(file), *OFFLOAD]) == 0
    out = capsys.readouterr().out
    assert out == (CASES / "statement.diff").read_text("utf-8")
    assert main(["patch", str(file), *OFFLOAD, "--diff"]) == 0
    assert capsys.readouterr().out == out
    assert file.read_bytes() == before
    assert asked["source"] == "stabilityai/stable-diffusion-xl-base-1.0"
    assert asked["dtype"] == "bfloat16"
    assert asked["call"]["prompt"] == "a lighthouse at dusk"


def test_it_writes_once(asked: dict[str, Any], script: Script, capsys: Out) -> None:
    file = script("statement")
    assert main(["patch", str(file), *OFFLOAD, "--write"]) == 0
    assert "memplan: statement.py is written: model_offload" in capsys.readouterr().err
    once = file.read_bytes()
    assert b"enable_model_cpu_offload" in once
    assert main(["patch", str(file), *OFFLOAD, "--write"]) == 0
    assert "has this plan already" in capsys.readouterr().err
    assert file.read_bytes() == once
    assert main(["patch", str(file), *OFFLOAD]) == 0
    assert capsys.readouterr().out == ""


def test_without_a_plan_it_takes_the_pick(asked: dict[str, Any], script: Script, capsys: Out) -> None:
    file = script("with_argparse")
    assert main(["patch", str(file), "--prefer", "memory", "--vram", "8", "--steps", "4", "--write"]) == 0
    found = api.recommend("sdxl").pick("memory")
    assert f"is written: {found}" in capsys.readouterr().err
    assert f"# memplan (pipe, on args.device): {found}" in file.read_text("utf-8").replace("\n#   ", " ")
    assert asked["target"] == api.HERE
    assert main(["patch", str(script("with_argparse")), "--vram", "8", "--steps", "4"]) == 0
    assert (asked["target"], asked["variant"]) == (api.Target(vram=8), "fp16")
    assert asked["call"] == {"height": 1024, "width": 1024, "num_inference_steps": 4}


def test_where_nothing_fits_it_is_left_as_it_is(
    asked: dict[str, Any], script: Script, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = facts("sdxl", vram=0.5)
    monkeypatch.setattr(api, "facts", lambda *_, **__: small)
    assert main(["patch", str(script("statement")), "--write"]) == 3
    assert "no plan fits, and statement.py is left as it is; the nearest, " in capsys.readouterr().err
    file = script("statement")
    assert main(["patch", str(file), *OFFLOAD, "--write"]) == 3
    assert "statement.py is left as it is: the plan, model_offload, needs " in capsys.readouterr().err
    assert file.read_bytes() == (CASES / "statement.py").read_bytes()


def test_a_saved_plan_brings_its_model_and_call(
    asked: dict[str, Any], script: Script, capsys: Out, tmp_path: Path
) -> None:
    file = tmp_path / "open.py"
    file.write_text(script("statement").read_text("utf-8").replace('"stabilityai/', 'input() + "'), "utf-8")
    assert main(["patch", str(file), *OFFLOAD]) == 2
    assert (
        "open.py, line 4: which model is loaded here is not written out. Name it with --model."
        in capsys.readouterr().err
    )
    assert main(["patch", str(file), *OFFLOAD, "--model", "sdxl"]) == 0
    assert asked["source"] == "sdxl"
    saved = save(plan("sdxl", "vae_tiling:vae + model_offload"), tmp_path / "plan.json", {"height": 640})
    capsys.readouterr()
    assert main(["patch", str(file), "--plan", str(saved)]) == 0
    assert "+pipe.vae.enable_tiling()" in capsys.readouterr().out
    assert (asked["source"], asked["call"]["height"]) == ("/models/small", 640)


def test_of_several_one_is_named(asked: dict[str, Any], script: Script, capsys: Out) -> None:
    file = str(script("two_pipelines"))
    assert main(["patch", file, *OFFLOAD]) == 2
    assert "base in line 4, refiner in line 6" in capsys.readouterr().err
    for name in ("refiner", "6"):
        assert main(["patch", file, *OFFLOAD, "--pipe", name]) == 0
        shown = capsys.readouterr()
        assert '+refiner.enable_model_cpu_offload(device="cuda")' in shown.out
        assert "line 4 loads another pipeline" in shown.err
    assert main(["patch", file, *OFFLOAD, "--pipe", "third"]) == 2
    assert "no pipeline here is called third" in capsys.readouterr().err


def test_both_of_two_after_each_other(asked: dict[str, Any], script: Script) -> None:
    file = script("two_pipelines")
    for name in ("base", "refiner", "base", "refiner"):
        assert main(["patch", str(file), *OFFLOAD, "--pipe", name, "--write"]) == 0
    assert file.read_text("utf-8").count("enable_model_cpu_offload") == 2


def test_a_script_that_cannot_be_written_is_told(
    asked: dict[str, Any], script: Script, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    file = script("statement")
    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["patch", str(file), *OFFLOAD, "--write"]) == 2
    assert f"the script {file} cannot be written: No space left on device" in capsys.readouterr().err


def test_a_plan_of_another_class_is_refused_where_it_needs_what_is_not_there(
    asked: dict[str, Any], script: Script, capsys: Out
) -> None:
    file = str(script("class_attribute"))
    assert main(["patch", file, "--plan", "group_offload:unet", "--model", "sdxl"]) == 2
    told = "FluxPipeline has no unet, and the plan is for StableDiffusionXLPipeline. Name the model"
    assert told in capsys.readouterr().err
    assert main(["patch", file, *OFFLOAD, "--model", "sdxl"]) == 0
    assert "loads FluxPipeline, and the plan was made for a call of" in capsys.readouterr().err


def test_files_that_are_not_there(capsys: Out) -> None:
    assert main(["patch", "none.py"]) == 2
    assert "the script none.py cannot be read" in capsys.readouterr().err


def test_without_libcst_it_says_what_to_install(script: Script, capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **given: Any) -> Any:
        if name.startswith("memplan.faces.patching"):
            raise ModuleNotFoundError("No module named 'libcst'", name="libcst")
        return real(name, *args, **given)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["patch", str(script("statement"))]) == 2
    assert 'pip install "memplan[patch]"' in capsys.readouterr().err


def test_a_plan_and_a_preference_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["patch", str(tmp_path / "none.py"), "--plan", "model_offload", "--prefer", "speed"]
    assert main(line) == 2
    assert "--prefer chooses among plans, and --plan names one" in capsys.readouterr().err
