"""Two sides of real small pipelines: the same noise, what each took, what went wrong, and the way back."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

import memplan
from memplan.errors import BadInput
from memplan.faces.compare import compare, pictures, table
from memplan.faces.compare.compare import ready
from memplan.faces.compare.comparison import Comparison
from memplan.faces.compare.values import Value
from memplan.strategies import VaeSlicing
from memplan.strategy import Undo
from tests.compare.sides import LOSSY, both, called, called_once
from tests.measured_facts import facts_of
from tests.pipelines import build
from tests.test_strategy_laws import attributes


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
    assert found.pairs[0].before
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
    every = [pair.before.data for pair in lossy.pairs if pair.before]
    assert not torch.equal(every[0], every[2]), "other seeds make other noise"
    assert not torch.equal(every[0], every[1])
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


@pytest.mark.wide
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
    one, other = (pair.before.data for pair in found.pairs if pair.before)
    assert not torch.equal(one, other), "seeds reach it"


def test_what_the_plan_alone_gives_is_no_equality() -> None:
    one = Value("images", 0, None, "picture", torch.zeros(3, 8, 8))
    pairs = compare._paired({0: (one,)}, {0: (one, replace(one, item=1))})
    assert [(pair.before is None, pair.after is None) for pair in pairs] == [(False, False), (True, False)]
    judged = compare._judged(pairs, None, lambda message: None)
    assert [one.why for one in judged] == ["", "the plan alone gives it"]


@pytest.mark.wide
def test_an_interrupted_comparison_leaves_the_pipeline_as_it_was() -> None:
    pipe, calls = called_once(), []

    def stop(pipe: Any, step: int, time: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        calls.append(step)
        if len(calls) == 3:  # the second side's first step
            raise KeyboardInterrupt
        return kwargs

    before, random = attributes(pipe), torch.random.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        both(pipe, LOSSY, called("flux", num_inference_steps=2, callback_on_step_end=stop))
    pipe._current_timestep = None  # diffusers' own trace of a call that did not end
    assert len(calls) == 3
    assert attributes(pipe) == before
    assert torch.equal(torch.random.get_rng_state(), random)
    assert memplan.applied(pipe) is None


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


@pytest.mark.wide
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


@pytest.mark.wide
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
