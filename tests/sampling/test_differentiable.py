"""Gradients come through a solve, they are the right ones, and nothing else changes."""

from typing import Any

import diffusers
import pytest
import torch

import memplan
from memplan.applier import apply
from memplan.errors import BadInput
from memplan.strategies import PromptReuse, SplitGuidance
from tests.pipelines import EVERY_FAMILY, build, inputs
from tests.sampling.solved import (
    STEPS,
    call_of,
    counted,
    denoiser,
    equal,
    failing,
    gradients,
    loss_of,
    only_the_denoiser,
    peak_of,
    solved,
    state,
)
from tests.some import some


# ---- that they come --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", some(EVERY_FAMILY, "flux", "sd3", "sdxl", "wan"))
def test_every_weight_of_the_denoiser_gets_a_finite_gradient(family: str) -> None:
    pipe = only_the_denoiser(build(family))
    expected = pipe(**call_of(family))[0]
    found, grads = solved(pipe, call_of(family))
    assert torch.equal(found, expected)
    assert all(bool(grad.isfinite().all()) for grad in grads.values())
    assert sum(bool(grad.any()) for grad in grads.values()) > len([*denoiser(pipe).parameters()]) / 2


@pytest.mark.parametrize("family", some(("flux", "sdxl", "wan"), "flux", "wan"))
def test_they_come_through_the_vae_too(family: str) -> None:
    pipe = only_the_denoiser(build(family))
    call = call_of(family, num_inference_steps=2, output_type="pt")
    expected = pipe(**call)[0]
    found, grads = solved(pipe, call_of(family, num_inference_steps=2, output_type="pt"))
    assert torch.allclose(found, expected, atol=1e-6)
    assert any(bool(grad.any()) for grad in grads.values())


def test_latents_and_text_encoders_get_them() -> None:
    pipe = build("sd3")
    latents = torch.randn(1, pipe.transformer.config.in_channels, 16, 16, requires_grad=True)
    with memplan.differentiable(pipe):
        loss_of(pipe(**call_of("sd3", latents=latents))).backward()
    assert latents.grad is not None
    assert bool(latents.grad.any())
    assert any(bool(grad.any()) for grad in gradients(pipe.text_encoder).values())


def test_a_gradient_is_that_of_small_changes() -> None:
    pipe, step = build("sd3"), 0.05
    call = call_of("sd3", num_inference_steps=2)
    latents = torch.randn(1, pipe.transformer.config.in_channels, 16, 16, requires_grad=True)
    with memplan.differentiable(pipe):
        loss_of(pipe(**call, latents=latents)).backward()
    assert latents.grad is not None
    slope = latents.grad.norm()
    there = step * latents.grad / slope
    one, other = (loss_of(pipe(**call, latents=latents.detach() + sign * there)) for sign in (1, -1))
    assert float((one - other) / (2 * step)) == pytest.approx(float(slope), rel=1e-2)


# ---- checkpoints -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("checkpoint", ["step", "block"])
@pytest.mark.parametrize("family", some(("flux", "sd3", "sdxl", "wan", "qwenimage", "ltx"), "flux"))
def test_gradients_are_the_same_with_a_checkpoint(family: str, checkpoint: str) -> None:
    pipe = only_the_denoiser(build(family))
    found, grads = solved(pipe, call_of(family))
    other, others = solved(pipe, call_of(family), checkpoint=checkpoint)
    assert torch.equal(found, other)
    assert equal(grads, others)


@pytest.mark.parametrize("checkpoint", ["step", "block"])
def test_the_peak_is_lower_with_a_checkpoint(checkpoint: str) -> None:
    pipe = only_the_denoiser(build("sd3"))
    (_, grads), plain = peak_of(lambda: solved(pipe, call_of("sd3")))
    (_, others), peak = peak_of(lambda: solved(pipe, call_of("sd3"), checkpoint=checkpoint))
    assert peak < 0.6 * plain
    assert equal(grads, others)


def test_a_dropout_is_the_same_when_it_is_computed_again() -> None:
    pipe = only_the_denoiser(build("sd15"))
    pipe.unet.train()
    for module in pipe.unet.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    results = []
    for checkpoint in (None, "step"):
        torch.manual_seed(0)
        results.append(solved(pipe, call_of("sd15"), checkpoint=checkpoint))
    assert torch.equal(results[0][0], results[1][0])
    assert equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][0], pipe(**call_of("sd15"))[0])  # it did drop something else than this time


@pytest.mark.parametrize("checkpoint", ["step", "block"])
def test_what_is_checkpointed_is_not_computed_after_the_end(checkpoint: str) -> None:
    pipe = only_the_denoiser(build("flux"))
    with memplan.differentiable(pipe, checkpoint=checkpoint):
        loss = loss_of(pipe(**call_of("flux")))
    with pytest.raises(BadInput, match=r"call backward\(\) inside"):
        loss.backward()


def test_halves_of_a_batch_can_be_computed_again() -> None:
    pipe = only_the_denoiser(build("sd3"))
    _, grads = solved(pipe, call_of("sd3"))
    with apply([SplitGuidance("transformer")], pipe, "cpu"):
        assert equal(grads, solved(pipe, call_of("sd3"), checkpoint="step")[1])


# ---- the last steps --------------------------------------------------------------------------------------------------
def truncated(pipe: Any, call: dict[str, Any], last: int) -> torch.Tensor:
    """The loop of SD3 without guidance, written down: latents after it, of which the last steps keep gradients."""
    embeds, _, pooled, _ = pipe.encode_prompt(
        call["prompt"], None, None, do_classifier_free_guidance=False, max_sequence_length=call["max_sequence_length"]
    )
    pipe.scheduler.set_timesteps(STEPS)
    latents = call["latents"]
    for number, time in enumerate(pipe.scheduler.timesteps):
        with torch.set_grad_enabled(number >= STEPS - last):
            velocity = pipe.transformer(
                latents, timestep=time.expand(1), encoder_hidden_states=embeds, pooled_projections=pooled
            ).sample
            latents = pipe.scheduler.step(velocity, time, latents).prev_sample
    return latents


@pytest.mark.parametrize("last", [1, 3, STEPS])
def test_the_last_steps_are_those_of_a_truncated_loop(last: int) -> None:
    pipe = build("sd3")
    latents = torch.randn(1, pipe.transformer.config.in_channels, 16, 16)
    call = call_of("sd3", guidance_scale=1.0, latents=latents)
    by_hand = truncated(pipe, call, last)
    loss_of([by_hand]).backward()
    expected, texts = gradients(pipe.transformer), gradients(pipe.text_encoder)
    with memplan.differentiable(pipe, last=last):
        result = pipe(**call)
        loss_of(result).backward()
    assert torch.equal(result[0], by_hand)
    assert equal(gradients(pipe.transformer), expected)
    assert equal(gradients(pipe.text_encoder), texts)


@pytest.mark.parametrize("family", some(("flux", "sdxl", "wan", "qwenimage", "ltx"), "wan"))
def test_the_last_steps_start_from_plain_numbers(family: str) -> None:
    pipe, last = only_the_denoiser(build(family)), 2

    def cut(pipe: Any, number: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        done = number + 1 == STEPS - last
        return {name: value.detach() if done else value for name, value in values.items()}

    decorated: Any = type(pipe).__call__
    loss_of(decorated.__wrapped__(pipe, **call_of(family, callback_on_step_end=cut))).backward()
    expected = gradients(denoiser(pipe))
    assert equal(solved(pipe, call_of(family), last=last)[1], expected)
    assert not equal(solved(pipe, call_of(family))[1], expected)


def test_more_steps_than_there_are_is_all_of_them() -> None:
    pipe = only_the_denoiser(build("flux"))
    assert equal(solved(pipe, call_of("flux"))[1], solved(pipe, call_of("flux"), last=STEPS + 3)[1])


# ---- nothing else ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", some(("flux", "sd3", "sdxl", "wan"), "sdxl"))
@pytest.mark.parametrize("checkpoint", [None, "step", "block"])
def test_everything_is_as_before_also_after_an_error(family: str, checkpoint: str | None) -> None:
    pipe = build(family)
    denoiser(pipe).train()
    pipe.vae.requires_grad_(False)
    expected, before = pipe(**call_of(family))[0], state(pipe)
    solved(pipe, call_of(family), checkpoint=checkpoint, last=2)
    assert state(pipe) == before
    handle = denoiser(pipe).register_forward_pre_hook(failing(after=2))
    with memplan.differentiable(pipe, checkpoint=checkpoint):
        denoiser(pipe).eval()
        with pytest.raises(RuntimeError, match="this forward fails"):
            pipe(**call_of(family))
    handle.remove()
    assert state(pipe) == before
    found = pipe(**call_of(family))[0]
    assert torch.equal(found, expected)
    assert not found.requires_grad


def test_calls_of_another_pipeline_keep_no_gradients() -> None:
    pipe, other = build("flux"), build("flux", seed=1)
    expected = other(**call_of("flux"))[0]
    with memplan.differentiable(pipe):
        found = other(**call_of("flux"))[0]
    assert torch.equal(found, expected)
    assert not found.requires_grad


def test_pipelines_that_call_eval_change_no_mode() -> None:
    pipe = only_the_denoiser(build("flux"))
    encode, modes = pipe.encode_prompt, []

    def encoding(*args: Any, **kwargs: Any) -> Any:
        pipe.transformer.eval()
        modes.append(pipe.transformer.training)
        return encode(*args, **kwargs)

    pipe.encode_prompt = encoding
    pipe.transformer.train()
    solved(pipe, call_of("flux"))
    assert modes == [True]
    assert pipe.transformer.training
    pipe.transformer.eval()
    assert not pipe.transformer.training


def test_a_step_cache_is_off_inside_and_on_again() -> None:
    pipe = only_the_denoiser(build("flux"))
    expected, grads = solved(pipe, call_of("flux"))
    config = diffusers.FirstBlockCacheConfig(threshold=1e9)
    pipe.transformer.enable_cache(config)
    cached = pipe(**call_of("flux"))[0]
    assert not torch.equal(cached, expected)
    found, others = solved(pipe, call_of("flux"))
    assert torch.equal(found, expected)
    assert equal(grads, others)
    assert pipe.transformer._cache_config is config
    assert torch.equal(pipe(**call_of("flux"))[0], cached)


def test_a_step_cache_of_a_plan_can_be_undone_afterwards() -> None:
    pipe = only_the_denoiser(build("flux"))
    before = state(pipe)
    applied = memplan.auto_optimize(
        pipe, "first_block_cache:transformer", target=memplan.Target(vram=8, ram=16), device="cpu", **inputs("flux")
    )
    solved(pipe, call_of("flux"))
    assert pipe.transformer.is_cache_enabled
    applied.undo()
    assert state(pipe) == before


def test_prompts_are_encoded_anew() -> None:
    pipe = build("sd3")
    made = counted(pipe.text_encoder)
    with apply([PromptReuse(("text_encoder", "text_encoder_2", "text_encoder_3"))], pipe, "cpu"):
        pipe(**call_of("sd3"))
        first = len(made)
        pipe(**call_of("sd3"))
        assert len(made) == first
        solved(pipe, call_of("sd3"))
        assert len(made) == 2 * first
