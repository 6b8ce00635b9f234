"""What only batched guidance knows: the same picture with half the calls, when it falls back, and its price."""

import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch

from memplan.applier import apply
from memplan.errors import BadInput
from memplan.facts import PAIRED, Facts
from memplan.planner.seating import draw
from memplan.run import Run
from memplan.simulator.visits import visits
from memplan.strategies import BatchedGuidance, GroupOffload
from tests.pipelines import build, inputs
from tests.some import some
from tests.strategies.guided import facts, highest, made, traced, watched

Pairs: Any = import_module("memplan.strategies.live.pairs").Pairs
Forward = Callable[..., Any]
TWICE = (
    *("wan", "qwenimage", "flux", "chroma", "lumina2", "cosmos2", "flux2_klein", "hunyuan_video"),
    "hunyuan_video15",
)
NEGATIVE = {"negative_prompt": "bad bad bad", "true_cfg_scale": 3.0}
IT = BatchedGuidance("transformer")


def call_of(family: str, **more: Any) -> dict[str, Any]:
    """A call of three steps with both passes."""
    own = NEGATIVE if family in ("flux", "hunyuan_video") else {}
    return inputs(family) | {"num_inference_steps": 3} | own | more


def of_other_lengths(pipe: Any) -> tuple[int, dict[str, Any]]:
    """A call with embeddings of 7 and of 5 tokens, and how wide they are."""
    width = pipe.text_encoder.config.d_model
    prompt, negative = torch.rand(1, 7, width), torch.rand(1, 5, width)
    return width, call_of("wan", prompt=None, prompt_embeds=prompt, negative_prompt_embeds=negative)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What memplan said."""
    return [record.getMessage() for record in caplog.records if record.name == "memplan"]


# ---- the deed --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", some(TWICE, "wan", "qwenimage", "flux"))
def test_the_picture_stays_with_half_the_calls_after_the_first_step(family: str) -> None:
    pipe = build(family)
    expected, sizes = pipe(**call_of(family))[0], watched(pipe.transformer)
    with apply([IT], pipe, "cpu"):
        first, second = (pipe(**call_of(family))[0] for _ in range(2))
    assert sizes[:4] == [1, 1, 2, 2]
    assert torch.allclose(first, expected, atol=1e-5)
    assert torch.allclose(second, expected, atol=1e-5)
    sizes.clear()
    assert torch.equal(pipe(**call_of(family))[0], expected)
    assert sizes == [1] * 6


def test_other_prompts_and_sizes_are_learned_anew() -> None:
    pipe = build("wan")
    calls: list[dict[str, Any]] = [{}, {"prompt": "a cat"}, {"height": 48}, {"prompt": ["a dog", "a cat"]}]
    expected = [pipe(**call_of("wan", **more))[0] for more in calls]
    sizes = watched(pipe.transformer)
    with apply([IT], pipe, "cpu"):
        for more, picture in zip(calls, expected, strict=True):
            assert torch.allclose(pipe(**call_of("wan", **more))[0], picture, atol=1e-5)
    assert sizes == [1, 1, 2, 2] * 3 + [2, 2, 4, 4]


def test_it_goes_with_offloading() -> None:
    pipe = build("wan")
    expected = pipe(**call_of("wan"))[0]
    with apply([IT, GroupOffload("transformer")], pipe, "cpu"):
        assert torch.allclose(pipe(**call_of("wan"))[0], expected, atol=1e-5)


# ---- when it falls back ----------------------------------------------------------------------------------------------
def test_prompts_of_other_lengths_are_two_passes(caplog: pytest.LogCaptureFixture) -> None:
    pipe = build("wan")
    width, call = of_other_lengths(pipe)
    expected, sizes = pipe(**call)[0], watched(pipe.transformer)
    call["generator"] = torch.Generator().manual_seed(0)
    with apply([IT], pipe, "cpu"):
        assert torch.equal(pipe(**call)[0], expected)
    assert sizes == [1] * 6
    (said,) = messages(caplog)
    assert said.endswith(f"encoder_hidden_states is (1, 7, {width}) in one of them and (1, 5, {width}) in the other")


def test_passes_that_are_skipped_are_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    pipe, call = build("lumina2"), {"cfg_trunc_ratio": 0.5, "num_inference_steps": 6}
    expected, sizes = pipe(**call_of("lumina2", **call))[0], watched(pipe.transformer)
    with apply([IT], pipe, "cpu"):
        assert torch.allclose(pipe(**call_of("lumina2", **call))[0], expected, atol=1e-5)
    assert sizes.count(1) + 2 * sizes.count(2) >= 6
    assert sizes[:3] == [1, 1, 2]
    assert sizes[-1] == 1
    (said,) = messages(caplog)
    assert "the second is not made" in said


@pytest.mark.parametrize("in_place", [True, False])
def test_embeddings_that_change_on_the_way_are_noticed(in_place: bool, caplog: pytest.LogCaptureFixture) -> None:
    pipe = build("wan")

    def changing(pipe: Any, step: int, time: Any, given: dict[str, Any]) -> dict[str, Any]:
        negative = given["negative_prompt_embeds"]
        if step == 1:
            given["negative_prompt_embeds"] = negative.mul_(0.5) if in_place else negative * 0.5
        return given

    more = {
        "num_inference_steps": 4,
        "callback_on_step_end": changing,
        "callback_on_step_end_tensor_inputs": ["negative_prompt_embeds"],
    }
    expected, sizes = pipe(**call_of("wan", **more))[0], watched(pipe.transformer)
    with apply([IT], pipe, "cpu"):
        assert torch.allclose(pipe(**call_of("wan", **more))[0], expected, atol=1e-5)
    assert sizes == ([1, 1, 2, 1, 1, 2] if in_place else [1, 1, 2, 2, 1, 2])
    assert len(messages(caplog)) == (0 if in_place else 1)


def test_a_step_cache_that_comes_later_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    pipe = build("wan")
    with apply([IT], pipe, "cpu"):
        pipe.transformer._cache_config = object()  # how diffusers tells that a cache is on
        sizes = watched(pipe.transformer)
        pipe(**call_of("wan"))
        del pipe.transformer._cache_config
    assert sizes == [1] * 6
    (said,) = messages(caplog)
    assert said.endswith("its step cache tells them apart")


# ---- pair by pair ----------------------------------------------------------------------------------------------------
def denoise(hidden_states: Any, timestep: Any, text: Any, kwargs: Any = None, image: Any = None) -> tuple[Any]:
    """A denoiser of few words."""
    offset = 0 if not kwargs else kwargs["by"][0]
    return (hidden_states * timestep.reshape(-1, 1) + text + offset,)


def steps(pairs: Forward, samples: int = 1, **more: Any) -> list[torch.Tensor]:
    """What three steps of two passes give; `more` takes an argument for each of both."""
    texts, found = (torch.rand(samples, 3), torch.rand(samples, 3)), []
    for step in range(3):
        latents = torch.rand(samples, 3)
        for number, text in enumerate(texts):
            each = {name: values[number] for name, values in more.items()}
            result = pairs(hidden_states=latents, timestep=torch.full((samples,), float(step)), text=text, **each)[0]
            assert torch.equal(result, denoise(latents, torch.full((samples,), float(step)), text, **each)[0])
            found.append(result)
    return found


def counted() -> tuple[Forward, list[int]]:
    """Such a denoiser called in pairs, and the batches that it is given."""
    sizes: list[int] = []

    def counting(hidden_states: Any, timestep: Any, text: Any, kwargs: Any = None, image: Any = None) -> tuple[Any]:
        sizes.append(len(hidden_states))
        return denoise(hidden_states, timestep, text, kwargs)

    return Pairs("batched_guidance", torch.nn.Identity(), counting), sizes


def test_what_is_given_anew_at_each_step_is_compared_by_value() -> None:
    pairs, sizes = counted()
    steps(pairs, samples=2)
    assert sizes == [2, 2, 4, 4]


def test_an_argument_that_is_changed_in_place_between_the_passes_is_noticed() -> None:
    pairs, sizes = counted()
    by = {"by": [0.0]}
    latents, text = torch.rand(1, 3), torch.rand(1, 3)
    for step in range(3):
        for offset in (1.0, 2.0):
            by["by"][0] = offset
            result = pairs(latents + step, torch.ones(1), text, by)[0]
            assert torch.equal(result, latents + step + text + offset)
    assert sizes == [1] * 6


def test_one_image_for_several_samples_is_two_passes(caplog: pytest.LogCaptureFixture) -> None:
    pairs, sizes = counted()
    image = torch.ones(1, 3)
    steps(pairs, samples=2, image=(image, image))
    assert sizes == [2] * 6
    assert messages(caplog)[0].endswith("image has one sample for all 2")


@pytest.mark.parametrize("images", [(None, torch.ones(1)), (torch.ones(2), torch.ones(3)), (1, 2)])
def test_unlike_arguments_are_two_passes(images: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    pairs, sizes = counted()
    steps(pairs, image=images)
    assert sizes == [1] * 6
    assert len(messages(caplog)) == 1


def test_calls_with_other_latents_are_no_pairs() -> None:
    pairs, sizes = counted()
    for _ in range(4):
        pairs(torch.rand(1, 3), torch.ones(1), torch.ones(1, 3))
    assert sizes == [1] * 4


def test_it_keeps_no_embeddings_alive() -> None:
    pairs, sizes = counted()
    references: list[Callable[[], Any]] = []
    latents, texts = torch.rand(1, 3), [torch.rand(1, 3), torch.rand(1, 3)]
    while texts:
        references.append(weakref.ref(texts[0]))
        pairs(latents, torch.ones(1), texts.pop(0))
    assert [reference() for reference in references] == [None, None]
    pairs(torch.rand(1, 3), torch.ones(1), torch.rand(1, 3))
    assert sizes == [1, 1, 1]


# ---- what it costs ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("family", some(("wan", "qwenimage", "flux"), "wan"))
def test_the_peak_is_that_of_a_real_run(family: str) -> None:
    pipe, call = build(family), call_of(family, output_type="latent")
    plain, paired = made(traced(pipe, call, str(IT), device="cpu"), "transformer", PAIRED)
    IT.apply(pipe, "cpu")
    measured = highest(pipe.transformer, lambda: pipe(**call))
    assert paired.peak_segment.peak == pytest.approx(measured, rel=0.01)
    assert paired.peak_segment.peak > 1.5 * plain.peak_segment.peak
    assert paired.flops > 1.9 * plain.flops


@pytest.fixture(scope="module")
def known() -> Facts:
    """Facts of a call of three steps."""
    return facts(build("wan"), call_of("wan"), str(IT))


@pytest.mark.slow
def test_the_first_step_is_priced_as_two_calls_and_the_others_as_one(known: Facts) -> None:
    run = IT.redraw(Run(known))
    denoising = [v for v in visits(run) if v.call.component == "transformer"]
    assert [(v.step.repeat, v.call.variant) for v in denoising] == [(2, ()), (2, (PAIRED,))]
    assert denoising[1].call.activations > 1.5 * denoising[0].call.activations


@pytest.mark.slow
def test_streamed_weights_come_once_for_both(known: Facts) -> None:
    plans = ([GroupOffload("transformer")], [GroupOffload("transformer"), IT])
    two, one = (draw(known, plan).bill for plan in plans)
    assert one.traffic.to_device < two.traffic.to_device
    assert one.seconds < two.seconds


# ---- who may ---------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("family", some(("flux", "sd3"), "sd3"))
def test_refuses_pipelines_that_call_it_once(family: str) -> None:
    said = IT.refuses(Run(facts(build(family), inputs(family), str(IT))))
    assert said == (
        "transformer cannot make both passes at once: the pipeline does not call it twice with the same latents, "
        "one call after the other"
    )


@pytest.mark.slow
def test_refuses_passes_of_other_shapes() -> None:
    pipe = build("wan")
    _, call = of_other_lengths(pipe)
    assert (IT.refuses(Run(facts(pipe, call, str(IT)))) or "").endswith("its two passes differ in shapes or in masks")


def test_not_beside_the_inverse() -> None:
    pipe = build("flux")
    with apply([IT], pipe, "cpu"), pytest.raises(BadInput, match="has batched_guidance already"):
        IT.apply(pipe, "cpu")
