"""What only splitting guidance knows: the same picture with half the batch, its price, and whom it refuses."""

from importlib import import_module
from typing import Any

import pytest
import torch

from memplan.applier import apply
from memplan.errors import BadInput
from memplan.facts import HALVED
from memplan.planner import recommend
from memplan.planner.seating import draw
from memplan.run import Run
from memplan.strategies import Compile, GroupOffload, OnGpu, SplitGuidance
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.some import some
from tests.strategies.guided import denoiser, facts, highest, made, traced, watched
from tests.test_strategy_laws import picture

batches: Any = import_module("memplan.strategies.live.batches")
BATCHED = ("sdxl", "sd3", "cogvideox", "pixart_sigma", "sana", "z_image", "auraflow", "ltx", "mochi", "sd15")


# ---- the deed --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", some(BATCHED, "sdxl", "sd3", "cogvideox"))
def test_the_picture_stays_with_twice_the_calls_of_half_the_batch(family: str) -> None:
    pipe = build(family)
    name, expected = denoiser(pipe), picture(pipe, family)
    sizes = watched(getattr(pipe, name))
    with apply([SplitGuidance(name)], pipe, "cpu"):
        split = picture(pipe, family)
    assert sizes == [1, 1, 1, 1]
    assert torch.allclose(split, expected, atol=1e-4)
    assert torch.equal(picture(pipe, family), expected)


def test_several_pictures_are_halved_alike() -> None:
    pipe, call = build("sd3"), inputs("sd3") | {"prompt": ["a dog", "a cat"], "num_inference_steps": 1}
    expected = pipe(**call).images
    sizes = watched(pipe.transformer)
    with apply([SplitGuidance("transformer")], pipe, "cpu"):
        split = pipe(**call | {"generator": torch.Generator().manual_seed(0)}).images
    assert sizes == [2, 2]
    assert torch.allclose(split, expected, atol=1e-4)


def test_an_odd_batch_stays_whole_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    pipe = build("flux")
    expected, sizes = picture(pipe, "flux"), watched(pipe.transformer)
    with apply([SplitGuidance("transformer")], pipe, "cpu"):
        assert torch.equal(picture(pipe, "flux"), expected)
    assert sizes == [1, 1]
    said = [record.getMessage() for record in caplog.records if record.name == "memplan"]
    assert said == ["split_guidance: FluxTransformer2DModel is given a batch of 1, which has no halves"]


def test_it_goes_with_offloading() -> None:
    pipe = build("sd3")
    expected = picture(pipe, "sd3")
    with apply([GroupOffload("transformer"), SplitGuidance("transformer")], pipe, "cpu"):
        assert torch.allclose(picture(pipe, "sd3"), expected, atol=1e-4)
    assert torch.equal(picture(pipe, "sd3"), expected)


def test_not_twice_and_not_beside_a_step_cache() -> None:
    from diffusers import FirstBlockCacheConfig

    pipe = build("cogvideox")
    undo = SplitGuidance("transformer").apply(pipe, "cpu")
    with pytest.raises(BadInput, match="has split_guidance already"):
        SplitGuidance("transformer").apply(pipe, "cpu")
    undo()
    pipe.transformer.enable_cache(FirstBlockCacheConfig())
    with pytest.raises(BadInput, match="disable_cache"):
        SplitGuidance("transformer").apply(pipe, "cpu")


# ---- samples ---------------------------------------------------------------------------------------------------------
def test_samples_are_found_wherever_they_are() -> None:
    whole = torch.arange(4.0)
    given: Any = {"a": whole, "b": (whole, torch.ones(3), 7), "c": [whole, whole], "d": [1, 2, 3, 4], "e": None}
    first, second = (batches.samples(given, 4, begin, begin + 2, apart=False) for begin in (0, 2))
    assert torch.equal(second["a"], whole[2:])
    assert torch.equal(second["b"][0], whole[2:])
    assert torch.equal(second["b"][1], torch.ones(3))
    assert (second["b"][2], second["d"], second["e"]) == (7, [3, 4], None)
    assert [len(entry) for entry in second["c"]] == [2, 2]
    both = batches.joined([first, second])
    assert torch.equal(both["a"], whole)
    assert both["d"] == given["d"]


def test_a_list_of_samples_is_cut_even_where_they_are_as_long_as_the_batch() -> None:
    given = [torch.ones(2, 5), torch.zeros(2, 5)]
    assert [len(s) for s in batches.samples(given, 2, 0, 1, apart=True)] == [2]
    assert [len(s) for s in batches.samples(given, 2, 0, 1, apart=False)] == [1, 1]


# ---- what it costs ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("family", some(("sdxl", "sd3", "cogvideox"), "sd3"))
def test_the_peak_is_that_of_a_real_run(family: str) -> None:
    pipe, call = build(family), inputs(family) | {"output_type": "latent"}
    name = denoiser(pipe)
    plain, split = made(traced(pipe, call, f"split_guidance:{name}", device="cpu"), name, HALVED)
    SplitGuidance(name).apply(pipe, "cpu")
    measured = highest(getattr(pipe, name), lambda: pipe(**call))
    assert split.peak_segment.peak == pytest.approx(measured, rel=0.03 if name == "unet" else 0.01)
    if name != "unet":  # the CPU's convolutions hold more for one sample of this size than for two
        assert split.peak_segment.peak < 0.7 * plain.peak_segment.peak
    assert split.flops == plain.flops


@pytest.mark.slow
def test_streamed_weights_come_twice() -> None:
    pipe = build("sd3")
    known = facts(pipe, inputs("sd3"), "split_guidance:transformer")
    plans = ([GroupOffload("transformer")], [GroupOffload("transformer"), SplitGuidance("transformer")])
    whole, split = (draw(known, plan).bill for plan in plans)
    assert 1.5 * whole.traffic.to_device < split.traffic.to_device <= 2 * whole.traffic.to_device
    assert split.seconds > whole.seconds


# ---- who may ---------------------------------------------------------------------------------------------------------
def test_refuses_a_batch_of_one() -> None:
    known = facts(build("flux"), inputs("flux"), "split_guidance:transformer")
    assert SplitGuidance("transformer").refuses(Run(known)) == (
        "transformer cannot be called with half a batch: FluxTransformer2DModel is given a batch of 1, "
        "which has no halves"
    )


def test_refuses_what_is_no_denoiser_and_what_was_not_followed() -> None:
    known = facts_of(build("sd3"), ways={})
    assert SplitGuidance("vae").refuses(Run(known)) == "split_guidance is for denoisers, and vae is none"
    assert SplitGuidance("transformer").refuses(Run(known)) == (
        "split_guidance needs a dry run of its own: price the plan that names it"
    )


def test_the_whole_is_not_compiled_around_it() -> None:
    run = SplitGuidance("transformer").redraw(Run(facts_of(build("flux"))))
    said = Compile("transformer", "whole").refuses(run)
    assert said == "what has transformer called in halves would be compiled with it: set region=blocks"


def test_it_is_never_picked() -> None:
    found = recommend(facts_of(build("sd3")), [SplitGuidance, OnGpu])
    assert not any(s.name == "split_guidance" for plan in found.front for s in plan.strategies)
    (left,) = (d for d in found.dropped if d.what == "split_guidance:transformer")
    assert left.reason.endswith("to have it all the same, name split_guidance")
