"""Two sides of real small pipelines: the same noise, what each took, what went wrong, and the way back."""

import json
import math
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import memplan
from memplan import planner
from memplan.errors import BadInput
from memplan.faces.cli import main
from memplan.faces.compare import pictures, table
from memplan.faces.compare.compare import compared, ready
from memplan.faces.compare.comparison import Comparison
from memplan.faces.compare.running import Caller
from memplan.registry import parse_plan
from memplan.strategies import VaeSlicing
from memplan.strategy import Undo
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.test_strategy_laws import attributes

LOSSY = "layerwise_casting:transformer,keep_original=true"


def called(family: str, **changes: Any) -> dict[str, Any]:
    """The arguments of a call without its generator."""
    return {name: value for name, value in (inputs(family) | changes).items() if name != "generator"}


def called_once() -> Any:
    """A pipeline that has what its first call leaves on it."""
    pipe = build("flux")
    pipe(**inputs("flux"))
    return pipe


def both(
    pipe: Any, plan: str, call: dict[str, Any], seeds: tuple[int, ...] = (0,), repeat: int = 0, **asked: bool
) -> Comparison:
    """The comparison without a dry run, as figures of what is predicted are not looked at."""
    facts = facts_of(pipe, kind="cpu")
    plans = planner.draw(facts, ()), planner.draw(facts, parse_plan(plan, facts))
    said = {"predicted": False, "check_undo": False, "lpips": False} | asked
    return compared(Caller(pipe, call, seeds, repeat, lambda message: None), plans, "cpu", **said)


@pytest.fixture(scope="module")
def lossy() -> Comparison:
    """Two seeds of two pictures each under a lossy plan, the first seed twice."""
    return both(build("flux"), LOSSY, called("flux", num_images_per_prompt=2), (3, 4), 1)


# ---- the face --------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_plan_that_moves_weights_gives_the_same_pictures_and_goes_again() -> None:
    pipe, call = called_once(), called("flux")
    before, random = attributes(pipe), torch.random.get_rng_state()
    said: list[str] = []
    asked: dict[str, Any] = {"check_undo": True, "progress": said.append, "device": "cpu"}
    target = memplan.Target(vram=24, ram=64)
    found = memplan.compare(pipe, "model_offload", target=target, **asked, **call)
    assert memplan.applied(pipe) is None
    assert attributes(pipe) == before
    assert torch.equal(torch.random.get_rng_state(), random)
    assert (found.equal, found.undone, found.psnr, found.ssim, found.most) == (True, True, math.inf, 1.0, 0.0)
    assert (found.baseline.plan, found.plan.plan, found.device) == ("everything on the CPU", "model_offload", "cpu")
    for side in (found.baseline, found.plan):
        assert side.repeats
        assert side.first
        assert len(side.steady) == 1
        assert side.usual.seconds == side.steady[0].seconds
        assert side.predicted
        assert side.predicted.allocated
        assert side.held
        assert side.usual.allocated is None, "the CPU keeps no peaks"
    assert found.baseline.predicted
    assert found.plan.predicted
    assert (found.plan.predicted.allocated or 0) < (found.baseline.predicted.allocated or 0)
    assert {"comparing the outputs", "counting allocations", "model_offload: call 2 of 2"} <= set(said)
    expected = pipe(**call, generator=torch.Generator("cpu").manual_seed(0))[0][0]
    assert torch.equal(found.pairs[0].before.data, expected)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"plan": "int8_weight_only", "seeds": 0}, "seeds is 0 and repeat 1: give 1 seed or more"),
        ({"plan": "int8_weight_only", "repeat": -1}, "0 repeats or more"),
        ({"plan": "nonsense"}, "memplan has no strategy 'nonsense'"),
        ({"plan": "int8_weight_only", "against": "nonsense"}, "memplan has no strategy 'nonsense'"),
        ({"plan": "model_offload", "generator": torch.Generator()}, "generator is made anew for each call"),
    ],
    ids=["seeds", "repeat", "plan", "against", "generator"],
)
def test_what_is_refused_is_refused_before_anything_is_measured(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        memplan.compare(build("flux"), **asked, device="cpu")


def test_what_is_no_pipeline_is_refused() -> None:
    with pytest.raises(BadInput, match=r"compare\(\) calls a pipeline of diffusers, and a Linear is none"):
        memplan.compare(torch.nn.Linear(1, 1), "model_offload")


def test_a_baseline_that_cannot_be_undone_is_refused() -> None:
    measured = facts_of(build("flux"), kind="cpu")
    lossy, exact = ["int8_weight_only:transformer"], ["model_offload"]
    with pytest.raises(BadInput, match="on top of what it is compared with: int8_weight_only can't be undone"):
        ready(measured, (lossy, exact), memplan.Target(), force=True)
    baseline, plan = ready(measured, (exact, lossy), memplan.Target(), force=True)
    assert (str(baseline), str(plan)) == ("model_offload", "int8_weight_only:transformer")


# ---- outputs ---------------------------------------------------------------------------------------------------------
def test_each_picture_of_each_seed_is_compared(lossy: Comparison) -> None:
    assert [(one.seed, one.item) for one in lossy.likeness] == [(3, 0), (3, 1), (4, 0), (4, 1)]
    assert all(20 < (one.psnr or 0) < 90 and 0.9 < (one.ssim or 0) < 1 for one in lossy.likeness)
    assert not torch.equal(lossy.pairs[0].before.data, lossy.pairs[2].before.data), "other seeds make other noise"
    assert not torch.equal(lossy.pairs[0].before.data, lossy.pairs[1].before.data)
    assert lossy.psnr == min(one.psnr or 0 for one in lossy.likeness)
    assert lossy.plan.repeats
    assert len(lossy.plan.steady) == 2
    assert lossy.plan.held


@pytest.mark.slow
def test_videos_are_compared_frame_by_frame() -> None:
    found = both(build("wan"), "cfg_zero_star:transformer", called("wan"))
    assert [one.frame for one in found.likeness] == list(range(9))
    (mean, worst) = [line.split() for line in str(found).splitlines() if "frames 0, mean" in line or "worst, f" in line]
    assert mean[1:6] == ["frames", "0,", "mean", "of", "9"]
    assert float(worst[5]) == pytest.approx(found.psnr or 0, abs=0.01)
    assert [one.frame for _, one in pictures.chosen(found)] == [0, 3, 5, 8]


def test_latents_are_compared_as_arrays() -> None:
    found = both(build("flux"), LOSSY, called("flux", output_type="latent"))
    (one,) = found.likeness
    assert (one.kind, one.psnr, one.ssim) == ("array", None, None)
    assert 10 < (one.snr or 0) < 90
    assert "SNR dB" in str(found)
    with pytest.raises(BadInput, match="there is no picture to show"):
        found.picture()


@pytest.mark.wide
def test_a_modular_pipeline_returns_pictures_without_a_name() -> None:
    found = both(build("modular_flux"), "vae_slicing", called("modular_flux", output_type="pil"), (0, 1))
    assert [one.output for one in found.likeness] == ["output", "output"]
    assert found.equal
    assert not torch.equal(found.pairs[0].before.data, found.pairs[1].before.data), "seeds reach it"


# ---- what goes wrong -------------------------------------------------------------------------------------------------
def test_a_plan_that_cannot_be_applied_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: VaeSlicing, pipe: Any, device: str) -> Undo:
        raise RuntimeError("no")

    monkeypatch.setattr(VaeSlicing, "apply", broken)
    pipe = called_once()
    before = attributes(pipe)
    found = both(pipe, "vae_slicing", called("flux"), check_undo=True)
    assert found.plan.failed == "vae_slicing could not be applied: no; the pipeline is as it was before"
    assert (found.equal, found.likeness, found.undone, found.speedup) == (False, (), True, None)
    assert found.baseline.first
    assert attributes(pipe) == before
    assert "the plan failed: vae_slicing could not be applied" in " ".join(str(found).split())
    assert json.loads(table.as_json(found))["plan"]["failed"] == found.plan.failed


def test_a_call_that_fails_under_the_plan_is_told_and_the_plan_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(self: VaeSlicing, pipe: Any, device: str) -> Undo:
        def fail(*_: Any) -> None:
            raise RuntimeError("out of luck")

        return pipe.transformer.register_forward_pre_hook(fail).remove

    monkeypatch.setattr(VaeSlicing, "apply", breaking)
    pipe = called_once()
    before = attributes(pipe)
    found = both(pipe, "vae_slicing", called("flux"), check_undo=True)
    assert found.plan.failed.startswith("RuntimeError: out of luck (raised in fail, ")
    assert found.undone
    assert attributes(pipe) == before
    assert memplan.applied(pipe) is None


def test_what_is_not_undone_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiling(self: VaeSlicing, pipe: Any, device: str) -> Undo:
        with torch.no_grad():
            pipe.transformer.proj_out.weight.mul_(2)
        return lambda: None

    monkeypatch.setattr(VaeSlicing, "apply", spoiling)
    found = both(build("flux"), "vae_slicing", called("flux"), check_undo=True)
    assert found.undone is False
    assert not found.equal
    assert "undone, it gives something else than before" in str(found)


def test_calls_of_one_seed_that_differ_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def drifting(self: VaeSlicing, pipe: Any, device: str) -> Undo:
        def drift(module: torch.nn.Module, *_: Any) -> None:
            with torch.no_grad():
                pipe.transformer.proj_out.weight.mul_(0.9)

        return pipe.transformer.register_forward_pre_hook(drift).remove

    monkeypatch.setattr(VaeSlicing, "apply", drifting)
    found = both(build("flux"), "vae_slicing", called("flux"), repeat=1)
    assert (found.baseline.repeats, found.plan.repeats) == (True, False)
    assert "with the plan calls of one seed differ by themselves" in str(found)


# ---- how it is shown -------------------------------------------------------------------------------------------------
def test_the_table_names_what_there_is(lossy: Comparison) -> None:
    text = str(lossy)
    head = next(line for line in text.splitlines() if "warm s" in line)
    assert head.split() == ["warm", "s", "first", "s", "held", "RAM"]
    rows = {line[:20].strip(): line for line in text.splitlines()}
    assert {"without the plan", "with the plan", "change"} <= rows.keys()
    assert f"the worst: PSNR {lossy.psnr:.2f} dB" in text
    assert "LPIPS is not given" in text
    assert sum(line.split()[:1] in (["3"], ["4"]) for line in text.splitlines()) == 4
    peaked = replace(lossy.plan, predicted=replace(lossy.plan.usual, allocated=2**30, reserved=2**31))
    shown = str(replace(lossy, plan=peaked, device="cuda"))
    assert next(line for line in shown.splitlines() if "with the plan" in line).split()[-3:-1] == ["1,024", "2,048"]


def test_json_holds_every_output(lossy: Comparison) -> None:
    told = json.loads(table.as_json(lossy))
    assert [one["psnr"] for one in told["outputs"]] == [one.psnr for one in lossy.likeness]
    assert told["baseline"]["usual"]["seconds"] == lossy.baseline.usual.seconds
    assert (told["schema"], told["equal"], told["undone"]) == (1, False, None)
    assert "NaN" not in table.as_json(lossy)
    assert "Infinity" not in table.as_json(lossy)


def test_notebooks_show_tables(lossy: Comparison) -> None:
    html = lossy._repr_html_()
    assert html.count("<table>") == 2
    assert repr(lossy).startswith(f"<Comparison of {LOSSY} with everything on the CPU: not equal; the worst: PSNR")


def test_the_picture_has_both_sides_and_their_difference(lossy: Comparison) -> None:
    rows = pictures.chosen(lossy)
    factor = pictures.amplified(rows)
    assert factor > 1
    assert (lossy.most or 0) * factor <= 1
    with Image.open(BytesIO(lossy.picture())) as opened:
        seen = opened.convert("RGB")
    cell, gap = pictures.LEAST, pictures.GAP
    assert seen.size == (3 * cell + 4 * gap, pictures.TITLE + 4 * (cell + pictures.CAPTION + gap))
    one, other = lossy.pairs[0].before.unit, lossy.pairs[0].after.unit  # type: ignore[union-attr]
    expected = (one, other, (one - other).abs() * factor)
    for column, part in enumerate(expected):  # each pixel of 32 x 32 is a square of 8 x 8
        at = gap + column * (cell + gap) + 8 * 5 + 4, pictures.TITLE + 8 * 7 + 4
        assert seen.getpixel(at) == tuple((part[:, 7, 5] * 255).round().int().tolist())


def test_every_picture_can_be_written(lossy: Comparison, tmp_path: Path) -> None:
    files = lossy.save(tmp_path / "new" / "folder")
    assert len(files) == 8
    assert sorted(file.name for file in files)[0] == "3-images-0-with.png"
    with Image.open(files[0]) as opened:
        assert opened.size == (32, 32)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="file cannot be written: File exists"):
        lossy.save(tmp_path / "file")


@pytest.mark.parametrize(("number", "taken"), [(3, [0, 1, 2]), (9, [0, 3, 5, 8]), (81, [0, 27, 53, 80])])
def test_frames_are_evenly_apart(number: int, taken: list[int]) -> None:
    assert pictures.evenly(range(number), 4) == taken


# ---- the command line ------------------------------------------------------------------------------------------------
@pytest.mark.wide
def test_a_saved_pipeline_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("sd15").save_pretrained(tmp_path / "sd15")
    size = "--height 32 --width 32 --steps 1"
    line = (
        f"--with int8_weight_only:unet --device cpu {size} --seed 5 --seeds 2 --repeat 0 --json --png {tmp_path}/a.png"
    )
    assert main(["compare", str(tmp_path / "sd15"), *line.split(), "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["plan"]["plan"], told["model"]) == ("int8_weight_only:unet", "StableDiffusionPipeline")
    assert [one["seed"] for one in told["outputs"]] == [5, 6]
    assert not told["equal"]
    assert "int8_weight_only can't be undone" in told["notes"][-1]
    assert told["plan"]["predicted"] is None, "a CPU without a card has nothing that could be predicted"
    assert f"wrote {tmp_path}/a.png" in err
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_plan_that_failed_is_an_exit_code(
    lossy: Comparison, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("memplan.faces.cli.compare._compared", lambda args, progress: lossy)
    line = ["compare", "sdxl", "--plan", "vae_slicing", "--png", str(tmp_path / "a.png")]
    assert main(line) == 0
    assert (tmp_path / "a.png").read_bytes() == lossy.picture()
    broken = replace(lossy, plan=replace(lossy.plan, failed="no luck"), likeness=(), pairs=())
    monkeypatch.setattr("memplan.faces.cli.compare._compared", lambda args, progress: broken)
    capsys.readouterr()
    assert main(line) == 1
    assert "the plan failed: no luck" in capsys.readouterr().out


def test_files_that_are_no_plans_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.txt").touch()
    assert main(["compare", "sdxl", "--with", str(tmp_path / "plan.txt"), "--device", "cpu"]) == 2
    assert "plans of memplan recommend --save end in .json" in capsys.readouterr().err
    assert main(["compare", "sdxl", "--with", str(tmp_path / "plan.json"), "--device", "cpu"]) == 2
    assert "plan.json cannot be read" in capsys.readouterr().err
