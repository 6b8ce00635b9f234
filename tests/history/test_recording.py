"""Real calls of small pipelines: measured by phase, beside what was predicted, and otherwise as if nobody looked."""

import gc
import json
import os
import subprocess
import sys
import warnings
import weakref
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import memplan
from memplan.applier import apply
from memplan.errors import BadInput
from memplan.faces import store
from memplan.faces.cli import main
from memplan.faces.history import database, meters
from memplan.faces.history import expected as expecting
from memplan.faces.history.expected import Expected, of_plan
from memplan.faces.history.measuring import device_of, digest, given
from memplan.faces.history.record import Figures
from memplan.faces.history.recording import recording, told
from memplan.faces.history.stretches import watched
from memplan.faces.imports import when_imported
from memplan.facts import MIB
from memplan.probes.fakes.twin import live_twin
from memplan.strategies import GroupOffload, VaeSlicing
from tests.pipelines import build, inputs
from tests.test_strategy_laws import attributes, picture

ROOM = memplan.Target(vram=24, ram=64)


def predicted(plan: memplan.Plan) -> dict[tuple[str, str], Figures]:
    return {
        (p.phase, p.component): Figures(p.memory.allocated, p.memory.reserved, p.seconds, p.host)
        for p in plan.bill.peaks
    }


# ---- verify ----------------------------------------------------------------------------------------------------------
def test_each_phase_is_measured_beside_its_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, made = build("flux"), list[memplan.Plan]()

    def noted(plan: memplan.Plan) -> Expected:
        made.append(plan)
        return of_plan(plan)

    monkeypatch.setattr(expecting, "of_plan", noted)
    expected = picture(pipe, "flux")
    before = attributes(pipe)
    found = memplan.verify(pipe, target=ROOM, **inputs("flux"))
    assert attributes(pipe) == before
    assert torch.equal(picture(pipe, "flux"), expected)
    (plan,) = made
    assert plan.strategies == ()
    assert {(p.phase, p.component): p.predicted for p in found.phases} == predicted(plan)
    assert [p.component for p in found.phases if p.component] == [
        "text_encoder", "text_encoder_2", "transformer", "vae"
    ]  # fmt: skip
    assert all((p.measured.seconds or 0) > 0 and (p.measured.ram or 0) > 50 * MIB for p in found.phases)
    assert all(p.measured.allocated is p.measured.reserved is None for p in found.phases)
    assert (found.device, found.plan, found.compared, found.excess) == ("cpu", "everything on the device", False, 0)
    assert dict(found.call)["prompt"] == "'a small dog'"
    assert database.load() == (found,)


def test_a_plan_is_applied_for_it_and_undone() -> None:
    pipe = build("flux")
    picture(pipe, "flux")
    before = attributes(pipe)
    plan = "vae_tiling:vae,tile=16 + model_offload"
    found = memplan.verify(pipe, plan, target=ROOM, device="cpu", record=False, **inputs("flux"))
    assert memplan.applied(pipe) is None
    assert attributes(pipe) == before
    assert found.plan == plan
    assert len([p for p in found.phases if p.predicted.allocated is not None and p.measured.seconds]) == 8
    assert database.load() == ()
    assert "nothing was predicted" not in str(found)
    assert "on cpu only seconds and RAM are measured" in str(found)


def test_only_pipelines_are_called() -> None:
    with pytest.raises(BadInput, match=r"verify\(\) calls a pipeline of diffusers, and a Linear is none"):
        memplan.verify(torch.nn.Linear(1, 1))


def test_the_calls_own_error_is_raised_and_nothing_is_left() -> None:
    pipe = build("flux")
    before, call = attributes(pipe), inputs("flux")
    call["max_sequence_length"] = 4096
    with pytest.raises(ValueError, match="max_sequence_length"):
        memplan.verify(pipe, target=ROOM, **call)
    assert attributes(pipe) == before
    assert database.load() == ()


# ---- guard -----------------------------------------------------------------------------------------------------------
def test_calls_inside_a_guard_are_recorded_with_the_plan_that_is_applied() -> None:
    pipe, call = build("flux"), inputs("flux")
    kind, others = type(pipe), {name: value for name, value in call.items() if name not in ("prompt", "generator")}
    own = vars(kind)["__call__"]
    expected = picture(pipe, "flux")
    with memplan.auto_optimize(pipe, "model_offload", target=ROOM, device="cpu", **others):
        with memplan.guard(pipe, record=True):
            assert torch.equal(pipe(**call)[0], expected)
            pipe(**{**call, "num_inference_steps": 1})
        assert vars(kind)["__call__"] is own
        pipe(**call)
    one, other = database.load()
    assert (one.plan, one.why_none, one.clean) == ("model_offload", "", False)
    assert all(p.predicted.allocated is not None for p in one.phases)
    assert other.why_none == "the plan that is applied was made for another call, without num_inference_steps=1"
    assert all(p.predicted == Figures() and p.measured.seconds for p in other.phases)
    assert one.digest != other.digest


def test_each_run_has_the_prediction_of_its_own_plan_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was predicted for the same arguments before; a dry run is made where something has changed."""
    pipe, made = build("sd15"), list[bool]()

    def dry(pipe: Any, call: Any, **_: Any) -> Any:
        made.append(pipe.vae.use_slicing)
        raise BadInput(f"sliced: {pipe.vae.use_slicing}")

    monkeypatch.setattr(expecting, "facts", dry)
    with memplan.guard(pipe, record=True):
        picture(pipe, "sd15")
        picture(pipe, "sd15")
        pipe.vae.enable_slicing()
        picture(pipe, "sd15")
        pipe.vae.disable_slicing()
        picture(pipe, "sd15")
        for strategy in (GroupOffload("unet"), GroupOffload("text_encoder"), VaeSlicing("vae")):
            with apply((strategy,), pipe, "cpu") as done:
                expecting._applied[done] = Expected(plan=str(strategy))
                picture(pipe, "sd15")
            del done
    assert [one.why_none for one in database.load()[:4]] == [f"sliced: {on}" for on in (False, False, True, False)]
    assert made.count(True) == 1
    assert len(made) <= 3  # some pipelines keep what they made in their first call
    assert [one.plan for one in database.load()[4:]] == [
        "group_offload:unet", "group_offload:text_encoder", "vae_slicing"
    ]  # fmt: skip


def test_what_memplan_cannot_price_is_measured_all_the_same() -> None:
    pipe = build("flux")
    with apply((GroupOffload("transformer"),), pipe, "cpu"), memplan.guard(pipe, record=True):
        picture(pipe, "flux")
    pipe.transformer.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    with memplan.guard(record=True):
        picture(pipe, "flux")
    own, foreign = database.load()
    assert (own.plan, own.why_none) == ("group_offload:transformer", "it was applied without a bill")
    assert foreign.why_none.startswith("transformer is offloaded already")
    assert all(p.measured.seconds for run in (own, foreign) for p in run.phases)


def test_pipelines_made_inside_are_recorded_and_calls_inside_calls_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with memplan.guard(record=True):
        pipe, inner = build("sd15"), build("sd15")
        original = pipe.vae.decode
        monkeypatch.setattr(pipe.vae, "decode", lambda *a, **k: (picture(inner, "sd15"), original(*a, **k))[1])
        picture(pipe, "sd15")
    (found,) = database.load()
    assert found.class_name == "StableDiffusionPipeline"
    assert [p.component for p in found.phases if p.component] == ["text_encoder", "unet", "vae"]


def test_dry_runs_are_not_recorded() -> None:
    pipe = build("sd15")
    with memplan.guard(record=True):
        live_twin(pipe).pipe(**inputs("sd15") | {"output_type": "latent"})
        assert database.load() == ()
        picture(pipe, "sd15")
    assert len(database.load()) == 1


def test_another_pipeline_and_an_error_are_not_recorded() -> None:
    pipe, other = build("flux"), build("flux")
    with memplan.guard(pipe, record=True):
        picture(other, "flux")
        with pytest.raises(ValueError, match="max_sequence_length"):
            pipe(**{**inputs("flux"), "max_sequence_length": 4096})
        with pytest.raises(TypeError, match="no_such"):
            pipe(no_such=1)
    assert database.load() == ()


def test_what_fails_in_recording_is_one_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pipe = build("flux")
    expected = picture(pipe, "flux")
    (tmp_path / "file").touch()
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="the run is not kept") as said, memplan.guard(pipe, record=True):
        made = [picture(pipe, "flux") for _ in range(2)]
    assert all(torch.equal(one, expected) for one in made)
    assert len([w for w in said if "is not kept" in str(w.message)]) == 1
    monkeypatch.setattr(meters.Meter, "start", lambda self: 1 / 0)
    with pytest.warns(UserWarning, match="could not be recorded: ZeroDivisionError"), memplan.guard(pipe, record=True):
        assert torch.equal(picture(pipe, "flux"), expected)


def test_a_recorded_pipeline_can_go() -> None:
    pipe = build("flux")
    with memplan.guard(pipe, record=True):
        picture(pipe, "flux")
        gone = weakref.ref(pipe.vae)
    del pipe
    gc.collect()
    assert gone() is None


# ---- peaks -----------------------------------------------------------------------------------------------------------
class Accelerator:
    """An allocator that says what a component's call has told it, as torch.cuda does."""

    def __init__(self) -> None:
        self.now = self.peak = 10
        self.reserved = self.most = 20
        self.resets = 0

    def call(self, peak: int) -> None:
        """A stretch that holds `peak` for a moment; what is reserved stays."""
        self.peak, self.reserved = max(self.peak, peak), max(self.reserved, 2 * peak)
        self.most = self.reserved

    def synchronize(self, device: Any) -> None: ...

    def max_memory_allocated(self, device: Any) -> int:
        return self.peak

    def max_memory_reserved(self, device: Any) -> int:
        return self.most

    def reset_peak_memory_stats(self, device: Any) -> None:
        self.peak, self.most, self.resets = self.now, self.reserved, self.resets + 1


def test_peaks_are_those_of_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, card = build("flux"), Accelerator()
    meter = meters.Meter(torch.device("cpu"))
    monkeypatch.setattr(meter, "_torch", card)
    heights = {"text_encoder": 30, "text_encoder_2": 70, "transformer": 50, "vae": 40}
    for name, height in heights.items():
        component = getattr(pipe, name)
        target, method = (component.decoder, "forward") if name == "vae" else (component, "forward")
        original = getattr(target, method)

        def told(*args: Any, original: Any = original, height: int = height, **kwargs: Any) -> Any:
            card.call(height)
            return original(*args, **kwargs)

        monkeypatch.setattr(target, method, told)
    with watched(pipe, meter) as stretches:
        pipe(**inputs("flux"))
    found = {place[1]: (f.allocated, f.reserved) for place, f in stretches.taken.items() if place[1]}
    assert found == {
        "text_encoder": (30, 60),
        "text_encoder_2": (70, 140),
        "transformer": (50, 140),
        "vae": (40, 140),
    }
    assert stretches.taken["preparing", ""].allocated == 10
    assert stretches.taken["post-processing", ""].reserved == 140
    assert card.resets == 2 * 5 + 2  # around five calls, at the start and at the end


# ---- parts -----------------------------------------------------------------------------------------------------------
def test_arguments_are_told_apart_without_their_values() -> None:
    pipe = build("flux")
    call = given(pipe, ("a dog",), {"height": 8, "generator": torch.Generator(), "latents": torch.zeros(2, 3)})
    assert call.keys() == {"prompt", "height", "latents"}
    assert digest(call) == digest({**call, "latents": torch.ones(2, 3)})
    assert len({digest(call), digest({**call, "latents": torch.ones(3, 3)}), digest({**call, "prompt": "a cat"})}) == 3


def test_the_device_is_where_hooks_bring_components() -> None:
    pipe = build("flux")
    assert device_of(pipe) == torch.device("cpu")
    pipe.vae._hf_hook = SimpleNamespace(execution_device="cuda:1")
    assert device_of(pipe) == torch.device("cuda:1")


def test_a_module_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("awaited_here", "never_here"):
        (tmp_path / f"{name}.py").write_text("value = 1", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before, done = list(sys.meta_path), list[int]()
    stop = when_imported("awaited_here", lambda: done.append(sys.modules["awaited_here"].value))
    other = when_imported("never_here", lambda: done.append(2))
    assert done == []
    __import__("awaited_here")
    assert done == [1]
    when_imported("awaited_here", lambda: done.append(3))()
    stop()
    other()
    __import__("never_here")
    assert (done, sys.meta_path) == ([1, 3], before)


def test_a_module_is_waited_for_by_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "awaited_by_two.py").write_text("value = 1", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    done = list[int]()
    stops = [when_imported("awaited_by_two", partial(done.append, n)) for n in range(3)]
    __import__("awaited_by_two")
    for stop in stops:
        stop()
    assert sorted(done) == [0, 1, 2]
    assert "exec_module" not in vars(sys.modules["awaited_by_two"].__loader__)


# ---- the command line ------------------------------------------------------------------------------------------------
SCRIPT = """
import sys
assert "torch" not in sys.modules
from tests.pipelines import build, inputs
pipe = build("sd15")
for _ in range(2):
    print(float(pipe(**inputs("sd15"))[0].sum()))
raise ValueError("the end")
"""


@pytest.mark.wide
def test_a_script_is_recorded_and_runs_as_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, "utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "memplan", "run", "--record", "script.py"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    one, same = done.stdout.splitlines()
    assert one == same
    assert f"memplan: recorded 2 calls of StableDiffusionPipeline in {database.file()}; memplan history" in done.stderr
    assert done.stderr.splitlines()[-3:] == [
        f'  File "{tmp_path / "script.py"}", line 8, in <module>',
        '    raise ValueError("the end")',
        "ValueError: the end",
    ]
    runs = database.load("StableDiffusionPipeline")
    assert len(runs) == 2
    assert runs[0].why_none == "No GPU is visible here to plan for."
    assert {p.phase for p in runs[0].phases} >= {"text encoding", "denoising", "decoding"}
    assert main(["history", "--model", "StableDiffusionPipeline"]) == 0
    assert capsys.readouterr().out.count("StableDiffusionPipeline, on cpu") == 2


def test_what_was_recorded_is_said_at_the_end_however_that_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("memplan.faces.oom.script.script", lambda *_: lambda: sys.exit(3))
    with pytest.raises(SystemExit, match="3"):
        main(["run", "--record", "script.py"])
    assert capsys.readouterr().err == "memplan: no call was recorded\n"
    with recording() as kept:
        picture(pipe := build("sd15"), "sd15")
        picture(pipe, "sd15")
    assert told(kept).startswith(f"recorded 2 calls of {type(pipe).__name__} in {database.file()};")
    assert told(Counter(A=1)).startswith("recorded 1 call of A in")


@pytest.mark.wide
def test_a_saved_pipeline_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = build("flux")
    pipe.save_pretrained(tmp_path / "flux")
    line = "--with model_offload --device cpu --vram 8 --height 32 --width 32 --steps 2 --max-sequence-length 32 --json"
    assert main(["verify", str(tmp_path / "flux"), *line.split()]) == 0
    (told,) = json.loads(capsys.readouterr().out)["runs"]
    assert (told["plan"], told["why_none"], told["device"]) == ("model_offload", "", "cpu")
    assert all(p["measured"]["seconds"] and p["predicted"]["allocated"] is not None for p in told["phases"])
    assert len(database.load(told["model"])) == 1


def test_there_is_nothing_to_force_without_a_plan() -> None:
    with pytest.raises(BadInput, match="force=True is for a plan that does not fit, and none is given"):
        memplan.verify(build("sd15"), force=True)


def test_a_plan_that_does_not_fit_is_verified_when_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    forced = list[bool]()

    def load(*_: Any, force: bool, **__: Any) -> None:
        forced.append(force)
        raise BadInput("that is enough")

    monkeypatch.setattr("memplan.faces.load.load", load)
    assert main(["verify", "flux.1-dev"]) == main(["verify", "flux.1-dev", "--force"]) == 2
    assert forced == [False, True]


def test_history_shows_and_forgets(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.history.runs import run

    assert main(["history"]) == 0
    assert "No runs are kept in" in capsys.readouterr().out
    database.save(run(more=20))
    database.save(run(1, device="cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["history"]) == 0
    text = capsys.readouterr().out
    assert "22 MiB more than predicted at most" in text
    cells = ["decoding", "vae", "500/520", "+20", "550/572", "+22", "1.00", "1.00", "1,024", "1,024"]
    assert cells in [line.split() for line in text.splitlines()]
    assert main(["history", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    decoding = told["runs"][0]["phases"][2]
    assert decoding["residual"]["allocated"] == 20 * MIB
    assert told["runs"][0]["call"] == {"prompt": "a small dog", "height": 64}
    assert told["runs"][0]["excess"] == 22 * MIB
    assert told["runs"][1]["phases"][2]["residual"]["allocated"] is None
    assert main(["history", "--forget"]) == 0
    assert f"Removed {database.file()}" in " ".join(capsys.readouterr().out.split())
    assert database.load() == ()


def test_a_model_that_was_never_recorded_is_told_which_were(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.history.runs import run

    assert main(["history", "--model", "smal"]) == 0
    assert "it has none at all" in " ".join(capsys.readouterr().out.split())
    database.save(run())
    assert main(["history", "--model", "smal"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("No runs of smal are kept in ")
    assert said.endswith("there are runs of small, SmallPipeline. Did you mean small?")
    assert main(["history", "--model", "smal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == []
