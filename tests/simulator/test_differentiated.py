"""The memory of a solve that keeps gradients: worked out by hand, and held against real ones on this CPU."""

from dataclasses import replace
from functools import wraps
from typing import Any

import pytest
import torch
from torch import nn

import memplan
from memplan.simulator.differentiated import Stage, peak, solve
from tests.accuracy.measured import held_by
from tests.pipelines import build, inputs
from tests.sampling.solved import denoiser, loss_of, only_the_denoiser, peak_of, without_random_states
from tests.some import some

STEP = Stage("transformer", saved=100, forward=120, backward=150, again=130, gradients=40, given=5)
VAE = Stage("vae", saved=300, forward=310, backward=400, again=400)


# ---- by hand ---------------------------------------------------------------------------------------------------------
def test_the_last_step_is_the_peak_where_steps_keep_all() -> None:
    assert peak(solve(STEP, 4)) == 3 * 100 + 150
    assert peak(solve(STEP, 4, last=2)) == 100 + 150
    assert peak(solve(STEP, 2, last=4)) == 100 + 150
    assert peak(solve(STEP, 1)) == 150


def test_steps_that_are_made_again_keep_what_they_were_given() -> None:
    assert peak(solve(STEP, 4, remade=True)) == max(3 * 5 + 120, 4 * 5 + 150, 3 * 5 + 40 + 130)


def test_gradients_that_are_large_move_the_peak_to_the_step_before() -> None:
    large = replace(STEP, gradients=500, backward=510)
    assert peak(solve(large, 3)) == max(200 + 510, 100 + 500 + 130, 500 + 130)


def test_a_decode_after_the_loop_is_a_stage_like_others() -> None:
    assert peak([*solve(STEP, 4), VAE]) == 4 * 100 + 400
    assert peak([*solve(STEP, 4, remade=True), VAE]) == 4 * 5 + 400


def test_forwards_without_gradients_can_be_the_peak() -> None:
    assert peak(solve(STEP, 1), plain=170) == 170
    assert peak((), plain=7) == 7


TOLERANCE = 0.01
"""What is left out: timesteps and sigmas, 2.4 KiB."""
LATENTS = 4
"""Those that the loop holds while the last step's backward runs: what it began with and what it returned, and the
gradients of that and of what the denoiser gave."""


# ---- against real solves ---------------------------------------------------------------------------------------------
def encoding_once(pipe: Any) -> Any:
    """The pipeline, which gives what it encoded first again: prompts are no part of a solve."""
    encode = pipe.encode_prompt
    kept: list[Any] = []

    @wraps(encode)
    def encoded(*args: Any, **kwargs: Any) -> Any:
        if not kept:
            kept.append(encode(*args, **kwargs))
        return kept[0]

    pipe.encode_prompt = encoded
    return pipe


def given_to(pipe: Any, call: dict[str, Any]) -> dict[str, Any]:
    """What the denoiser is given in the second step, where the latents have a history."""
    seen: list[dict[str, Any]] = []

    def watch(module: nn.Module, args: Any, given: dict[str, Any]) -> None:
        assert not args
        seen.append({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in given.items()})

    handle = denoiser(pipe).register_forward_pre_hook(watch, with_kwargs=True)
    pipe(**call)
    handle.remove()
    given = seen[1]
    given["hidden_states"].requires_grad_(True)
    return given


def stage(pipe: Any, call: dict[str, Any]) -> tuple[Stage, int]:
    """One forward and backward of the denoiser by itself, measured, and the peak of a forward without gradients.

    What a backward holds is measured together with its forward: of what was there before, the profiler sees nothing go.
    """
    part, given = denoiser(pipe), given_to(pipe, call)

    def forward() -> torch.Tensor:
        return part(**given)[0]

    with torch.no_grad():
        plain = peak_of(forward)[1]
    _, most, saved = held_by(forward)
    first, again = (peak_of(lambda: forward().sum().backward())[1] for _ in range(2))
    gradients = sum(weight.grad.nbytes for weight in part.parameters() if weight.grad is not None)
    part.zero_grad(set_to_none=True)
    own = given["hidden_states"].nbytes
    return Stage("transformer", saved, most, first, again, gradients, own), plain


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"checkpoint": "step", "last": 3}], ids=["all", "step"])
@pytest.mark.parametrize("family", some(("flux", "sd3", "wan"), "flux"))
def test_a_solve_holds_what_its_forwards_say(family: str, options: dict[str, Any]) -> None:
    check(family, options)


@pytest.mark.wide
@pytest.mark.parametrize("options", [{"last": 2}, {"checkpoint": "block"}, {"checkpoint": "step"}], ids=str)
@pytest.mark.parametrize("family", ["flux", "sd3", "wan"])
def test_so_does_one_with_other_options(family: str, options: dict[str, Any]) -> None:
    check(family, options)


def check(family: str, options: dict[str, Any]) -> None:
    """The measured peak of a solve is the one that follows from one forward."""
    steps, pipe = 5, encoding_once(only_the_denoiser(build(family)))
    call = inputs(family) | {"num_inference_steps": steps, "output_type": "latent", "guidance_scale": 1.0}
    checkpoint = options.get("checkpoint")
    if checkpoint == "block":
        denoiser(pipe).enable_gradient_checkpointing()
    with without_random_states():
        one, plain = stage(pipe, call)
    denoiser(pipe).disable_gradient_checkpointing()

    def whole() -> None:
        with memplan.differentiable(pipe, **options):
            loss_of(pipe(**call)).backward()

    remade = checkpoint == "step"
    beside = (LATENTS - remade) * one.given  # what steps that are made again were given is in their stages
    predicted = peak(solve(one, steps, last=options.get("last"), remade=remade), plain) + beside
    with without_random_states():
        assert peak_of(whole)[1] == pytest.approx(predicted, rel=TOLERANCE)
