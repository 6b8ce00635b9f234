"""Plans as files: what they hold, what is refused, and what happens to them somewhere else."""

import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import memplan
from memplan.__main__ import main
from memplan.errors import BadInput, NothingFits
from memplan.faces import api
from memplan.faces.travel.files import load, save
from memplan.faces.travel.schema import KNOWN, TYPES, faults, schema
from memplan.planner import Plan, Saved
from tests.faces import small
from tests.pipelines import build, inputs

ROOM = memplan.Target(vram=8, ram=32)
CALL = {"height": 1024, "prompt": "a lighthouse"}
Change = Callable[[dict[str, Any]], object]


def pick() -> Plan:
    found = small.found().pick("balanced")
    assert found is not None
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save(pick(), tmp_path / "plan.json", CALL, "bfloat16")


# ---- files -----------------------------------------------------------------------------------------------------------
def test_it_comes_back_as_it_was_saved(file: Path) -> None:
    plan, saved = pick(), Plan.load(file)
    assert isinstance(saved, Saved)
    assert str(saved) == str(plan)
    assert saved.call == CALL
    assert saved.model["class"] == "SmallPipeline"
    assert [part["name"] for part in saved.model["components"]] == ["text_encoder", "transformer", "vae"]
    assert saved.predicted["required"] == plan.bill.peak.memory.required
    assert saved.predicted["seconds"] == plan.bill.seconds
    assert saved.machine["vram"] == plan.run.facts.machine.vram
    assert saved.versions == {"memplan": version("memplan"), "torch": "2.13"}


def test_a_plan_saves_itself(tmp_path: Path) -> None:
    assert Plan.load(pick().save(tmp_path / "own.json", {"height": None})).call == {}


def test_what_is_saved_is_what_the_schema_says(file: Path) -> None:
    assert list(faults(json.loads(file.read_text("utf-8")), schema())) == []


def test_recommend_saves_the_preferred_plan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "facts", lambda *_, **__: small.facts())
    file = tmp_path / "plan.json"
    assert main(["recommend", "small", "--prefer", "memory", "--height", "512", "--save", str(file)]) == 0
    assert f"the plan is in {file}" in capsys.readouterr().err
    saved, wanted = load(file), small.found().pick("memory")
    assert wanted is not None
    assert (saved.plan, saved.reason, saved.call) == (str(wanted), wanted.reason, {"height": 512})
    monkeypatch.setattr(api, "facts", lambda *_, **__: small.facts(vram=0.5))
    assert main(["recommend", "small", "--save", str(tmp_path / "none.json")]) == 3
    assert not (tmp_path / "none.json").exists()


def test_without_a_card(tmp_path: Path) -> None:
    facts = small.facts()
    bare = replace(facts, machine=replace(facts.machine, gpu=None))
    plan = memplan.planner.draw(bare, ())
    content = json.loads(save(plan, tmp_path / "x.json", {}).read_text("utf-8"))
    assert content["machine"]["gpu"] is None
    assert list(faults(content, schema())) == []


def test_the_schema_is_read_whole() -> None:
    """Every word of it is one that faults() understands, and every object says what else it may have."""

    def words(by: dict[str, Any]) -> None:
        assert by.keys() <= KNOWN
        kinds = by["type"] if isinstance(by["type"], list) else [by["type"]]
        assert TYPES.keys() >= set(kinds)
        assert kinds != ["object"] or "additionalProperties" in by
        others = by.get("additionalProperties")
        inside = [*by.get("properties", {}).values(), *([by["items"]] if "items" in by else [])]
        for inner in [*inside, *([others] if isinstance(others, dict) else [])]:
            words(inner)

    words(dict(schema()))


WRONG: dict[str, tuple[Change, str]] = {
    "a field more": (lambda c: c.update(colour="red"), "colour is not known"),
    "one inside": (lambda c: c["machine"].update(cores=2), r"machine\.cores is not known"),
    "a field less": (lambda c: c.pop("plan"), "plan is missing"),
    "one less inside": (lambda c: c["predicted"].pop("ram"), r"predicted\.ram is missing"),
    "another type": (lambda c: c["machine"].update(vram="8 GiB"), r"machine\.vram is string, not integer"),
    "a truth for a number": (lambda c: c["predicted"].update(ram=True), "not integer"),
    "below zero": (lambda c: c["predicted"].update(seconds=-1), r"predicted\.seconds is -1, below 0"),
    "in a list": (lambda c: c["model"]["components"][1].pop("dtype"), r"model\.components\[1\]\.dtype is missing"),
    "in a table": (lambda c: c["versions"].update(torch=2), r"versions\.torch is integer, not string"),
    "no format": (lambda c: c.pop("format"), "format is missing"),
    "a later format": (lambda c: c.update(format=2), "has format 2, and this memplan reads format 1; a newer memplan"),
    "a technique of nobody": (lambda c: c.update(plan="vae_tilling:vae"), "Did you mean vae_tiling"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_plan_is_refused_with_the_place(case: str, file: Path) -> None:
    change, words = WRONG[case]
    content = deepcopy(json.loads(file.read_text("utf-8")))
    change(content)
    file.write_text(json.dumps(content), "utf-8")
    with pytest.raises(BadInput, match=words):
        load(file)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        load(tmp_path / "none.json")
    (tmp_path / "x.json").write_text("a plan", "utf-8")
    with pytest.raises(BadInput, match="is no plan of memplan, which is JSON"):
        load(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]", "utf-8")
    with pytest.raises(BadInput, match="the file is array, not object"):
        load(tmp_path / "x.json")
    with pytest.raises(BadInput, match=r"cannot be saved in .*x\.json: No such file or directory$"):
        save(pick(), tmp_path / "none" / "x.json", {})
    with pytest.raises(BadInput, match="leave that argument out"):
        save(pick(), tmp_path / "x.json", {"image": object()})


# ---- somewhere else --------------------------------------------------------------------------------------------------
PLAN = "layerwise_casting:text_encoder_2 + group_offload:transformer"


def saved_for_flux(file: Path, plan: str = PLAN, **changes: Any) -> Path:
    """A plan of a small FLUX, made elsewhere."""
    content = json.loads(file.read_text("utf-8"))
    content["model"]["class"] = "FluxPipeline"
    content |= {"plan": plan, "call": {"height": 16, "width": 16, "max_sequence_length": 8}, **changes}
    file.write_text(json.dumps(content), "utf-8")
    return file


@pytest.mark.slow
def test_it_is_priced_anew_and_applied(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe, call = build("flux"), inputs("flux")
    saved = memplan.Plan.load(saved_for_flux(file))
    with pytest.raises(
        NothingFits, match=r"needs .+ more .+It was made for 8\.00 GiB .+ predicted to take .+Now the card is"
    ):
        saved.apply(pipe, device="cpu", target=memplan.Target(vram=0.001, ram=32), **call)
    assert memplan.applied(pipe) is None
    done = saved.apply(pipe, device="cpu", target=ROOM, **call)
    assert "the plan is priced anew: the card is" in caplog.text
    assert f"torch is {version('torch')}, not 2.13" in caplog.text
    assert done is memplan.applied(pipe)
    assert any(hasattr(module, "_diffusers_hook") for module in pipe.transformer.modules())
    assert pipe(**call).images.isfinite().all()
    assert done is not None
    done.undo()
    assert memplan.applied(pipe) is None


def test_a_pipeline_of_another_class_is_refused(file: Path) -> None:
    with pytest.raises(BadInput, match="made for SmallPipeline, and this is a object"):
        Plan.load(file).apply(object(), device="cpu")


SCRIPT = """
import sys
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained(sys.argv[1]).to("cuda")
pipe.enable_model_cpu_offload()
assert pipe.device.type == "cpu"
hooked = lambda: any(hasattr(module, "_diffusers_hook") for module in pipe.transformer.modules())
print(hooked())
pipe.encode_prompt("a small dog", prompt_2=None, max_sequence_length=8)
print(hooked())
for _ in range(2):
    size = {"height": 16, "width": 16, "num_inference_steps": 1, "max_sequence_length": 8}
    images = pipe("a small dog", output_type="pt", **size).images
    print(hooked(), bool(images.isfinite().all()))
"""


def run(*args: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "memplan", "apply", "--device", "cpu", "--ram", "32", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=100)


@pytest.mark.slow
@pytest.mark.wide
def test_a_script_runs_with_the_plan(file: Path, tmp_path: Path) -> None:
    """It moves to a device that is not here, which the plan takes the place of."""
    build("flux").save_pretrained(tmp_path / "flux")
    (tmp_path / "script.py").write_text(SCRIPT, "utf-8")
    args = (str(saved_for_flux(file)), "script.py", str(tmp_path / "flux"))
    done = run("--vram", "8", *args, folder=tmp_path)
    assert done.stdout.split() == ["False", *["True"] * 5], done.stderr
    assert f"memplan: {PLAN} is applied to FluxPipeline" in done.stderr


@pytest.mark.wide
def test_a_script_ends_where_the_plan_no_longer_fits(file: Path, tmp_path: Path) -> None:
    build("flux").save_pretrained(tmp_path / "flux")
    (tmp_path / "script.py").write_text(SCRIPT, "utf-8")
    args = (str(saved_for_flux(file)), "script.py", str(tmp_path / "flux"))
    done = run("--vram", "0.001", *args, folder=tmp_path)
    assert (done.returncode, done.stdout.split()) == (3, ["False"])
    assert "It was made for 8.00 GiB of device memory" in done.stderr
    assert "Traceback" not in done.stderr


def test_where_there_is_nothing_to_run(file: Path, tmp_path: Path) -> None:
    done = run(str(file), "none.py", folder=tmp_path)
    assert done.returncode == 2
    assert "the script none.py cannot be read" in done.stderr
    (tmp_path / "script.py").write_text("print(1)", "utf-8")
    done = run(str(file), "script.py", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert "the plan was applied to nothing: it is for SmallPipeline, and the script called no pipeline" in done.stderr
