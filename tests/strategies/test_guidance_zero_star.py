"""What only CFG-Zero* knows: the guider's own numbers, forwards that are not made, and whom it refuses."""

from functools import wraps
from importlib import import_module
from typing import Any

import diffusers
import pytest
import torch
from diffusers.guiders.classifier_free_zero_star_guidance import cfg_zero_star_scale
from hypothesis import given, settings
from hypothesis import strategies as some_value

from memplan.applier import apply
from memplan.errors import BadInput
from memplan.facts import ZEROED, Facts
from memplan.planner import recommend
from memplan.run import Run
from memplan.simulator.visits import visits
from memplan.strategies import CfgZeroStar, OnGpu
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.some import some
from tests.strategies.guided import facts, made, traced, watched

zero_star: Any = import_module("memplan.strategies.live.zero_star")
ONE_BATCH = ("sd3", "sana", "ltx", "auraflow", "mochi", "z_image")
TWO_CALLS = ("wan", "flux", "chroma", "flux2_klein", "hunyuan_video", "lumina2", "qwenimage")
NORMED = ("qwenimage", "lumina2")
OWN: dict[str, dict[str, Any]] = {
    **{family: {"negative_prompt": "bad bad", "true_cfg_scale": 4.0} for family in ("flux", "hunyuan_video")},
    "lumina2": {"cfg_normalization": False},
}
STEPS, SCALE = 3, 4.0


def call_of(family: str) -> dict[str, Any]:
    """A call of three steps with guidance."""
    return inputs(family) | {"num_inference_steps": STEPS, "output_type": "latent"} | OWN.get(family, {})


def it(family: str, zeros: int = 1) -> CfgZeroStar:
    """With as many steps of zeros as the family takes."""
    return CfgZeroStar("transformer", 0 if family in NORMED else zeros)


def stepped(scheduler: Any) -> list[torch.Tensor]:
    """What the scheduler is given at each step from now on."""
    seen: list[torch.Tensor] = []
    step = scheduler.step

    @wraps(step)
    def watching(model_output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(model_output)
        return step(model_output, *args, **kwargs)

    scheduler.step = watching
    return seen


def returned(part: Any) -> list[Any]:
    """What each forward of `part` returns from now on; what is applied later stands before it."""
    seen: list[Any] = []
    forward = part.forward

    @wraps(forward)
    def watching(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        seen.append(result[0])
        return result

    part.forward = watching
    return seen


def passes(family: str, results: list[Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(conditional, unconditional) of each step in which the denoiser was called."""
    if family in TWO_CALLS:
        return list(zip(results[::2], results[1::2], strict=True))
    halves = [(torch.stack(r) if isinstance(r, list) else r).chunk(2) for r in results]
    return [(first, second) if family == "z_image" else (second, first) for first, second in halves]


def guided(family: str, conditional: torch.Tensor, unconditional: torch.Tensor) -> torch.Tensor:
    """What the pipeline makes of both when diffusers' guider guides."""
    scale = {"z_image": SCALE + 1, "qwenimage": 2.0}.get(family, SCALE)
    guider = diffusers.ClassifierFreeZeroStarGuidance(guidance_scale=scale, zero_init_steps=0)
    guider.set_state(step=1, num_inference_steps=STEPS, timestep=torch.LongTensor([1]))
    pred = guider.forward(conditional.float(), unconditional.float()).pred
    if family == "qwenimage":
        pred = pred * conditional.norm(dim=-1, keepdim=True) / pred.norm(dim=-1, keepdim=True)
    return -pred if family in ("z_image", "lumina2") else pred


# ---- the guider's numbers --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", some((*ONE_BATCH, *TWO_CALLS), "sd3", "wan"))
def test_the_scheduler_is_given_what_the_guider_makes_of_both_passes(family: str) -> None:
    pipe, zeros = build(family), it(family).zero_init
    results, outputs = returned(pipe.transformer), stepped(pipe.scheduler)
    with apply([it(family)], pipe, "cpu"):
        pipe(**call_of(family))
    both = passes(family, results)
    assert len(outputs) == STEPS
    assert len(both) == STEPS - zeros
    assert all(not output.any() for output in outputs[:zeros])
    for (conditional, unconditional), output in zip(both, outputs[zeros:], strict=True):
        expected = guided(family, conditional, unconditional)
        assert torch.allclose(output.float().flatten(), expected.flatten(), atol=1e-4), family


def test_a_pipeline_with_a_guider_gives_what_it_gives_with_that_guider() -> None:
    pipe = build("hunyuan_video15")
    pipe.register_modules(guider=diffusers.ClassifierFreeZeroStarGuidance(guidance_scale=6.0, zero_init_steps=1))
    expected = pipe(**call_of("hunyuan_video15"))[0]
    pipe.register_modules(guider=diffusers.ClassifierFreeGuidance(guidance_scale=6.0))
    sizes = watched(pipe.transformer)
    with apply([CfgZeroStar("transformer")], pipe, "cpu"):
        found = pipe(**call_of("hunyuan_video15"))[0]
    assert torch.allclose(found, expected, atol=1e-4)
    assert len(sizes) == 2 * (STEPS - 1)


# ---- the algebra -----------------------------------------------------------------------------------------------------
vectors = some_value.integers(0, 2**32 - 1).map(
    lambda s: torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(s))
)
factors = some_value.floats(-8, 8).filter(lambda x: abs(x) > 1e-2)


@settings(deadline=None, max_examples=50)
@given(vectors, factors)
def test_alpha_is_the_factor_between_passes_that_differ_by_one(unconditional: torch.Tensor, factor: float) -> None:
    assert torch.allclose(zero_star.alpha(factor * unconditional, unconditional), torch.tensor(factor), atol=1e-4)
    assert torch.allclose(zero_star.scaled(unconditional, unconditional), unconditional, atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(vectors, vectors, factors)
def test_what_is_left_is_at_right_angles_and_no_matter_how_large(
    conditional: torch.Tensor, unconditional: torch.Tensor, factor: float
) -> None:
    kept = zero_star.scaled(conditional, unconditional)
    assert torch.allclose(((conditional - kept) * kept).flatten(1).sum(1), torch.zeros(2), atol=1e-3)
    assert torch.allclose(zero_star.scaled(conditional, factor * unconditional), kept, atol=1e-3)
    flat = cfg_zero_star_scale(conditional.flatten(1), unconditional.flatten(1))
    assert torch.allclose(zero_star.alpha(conditional, unconditional).flatten(), flat.flatten(), atol=1e-5)


def test_nothing_is_divided_by_zero() -> None:
    assert not zero_star.scaled(torch.ones(1, 3), torch.zeros(1, 3)).any()


# ---- the deed --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("family", "each"), [("sd3", 1), ("wan", 2)])
@pytest.mark.parametrize("zeros", [0, 2])
def test_steps_of_zeros_cut_their_forwards(family: str, each: int, zeros: int) -> None:
    pipe = build(family)
    sizes = watched(pipe.transformer)
    with apply([CfgZeroStar("transformer", zeros)], pipe, "cpu"):
        for _ in range(2):  # each generation begins anew
            pipe(**call_of(family))
            assert len(sizes) == each * (STEPS - zeros)
            sizes.clear()


@pytest.mark.parametrize("family", ["sd3", "wan"])
def test_undone_it_is_as_before(family: str) -> None:
    pipe = build(family)
    expected = pipe(**call_of(family))[0]
    with apply([CfgZeroStar("transformer")], pipe, "cpu"):
        assert not torch.allclose(pipe(**call_of(family))[0], expected, atol=1e-4)
    assert torch.equal(pipe(**call_of(family))[0], expected)


def test_two_pictures_without_guidance_are_no_passes() -> None:
    pipe = build("sd3")
    call = call_of("sd3") | {"guidance_scale": 1.0, "prompt": ["a dog", "a cat"]}
    expected = pipe(**call)[0]
    call["generator"] = torch.Generator().manual_seed(0)
    with apply([CfgZeroStar("transformer", 0)], pipe, "cpu"):
        assert torch.equal(pipe(**call)[0], expected)


def test_an_experts_pair_of_denoisers_is_scaled_in_both() -> None:
    pipe = build("wan22")
    sizes = watched(pipe.transformer), watched(pipe.transformer_2)
    with apply([CfgZeroStar("transformer"), CfgZeroStar("transformer_2")], pipe, "cpu"):
        pipe(**call_of("wan22") | {"num_inference_steps": 6})
    assert sum(map(len, sizes)) == 2 * (6 - 1)


# ---- what it costs ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(("family", "each"), [("sd3", 1), ("wan", 2)])
def test_the_forwards_that_are_not_made_are_not_priced(family: str, each: int) -> None:
    known = facts(build(family), call_of(family), "cfg_zero_star:transformer")
    for zeros in (0, 1, 2):
        strategy = CfgZeroStar("transformer", zeros)
        assert strategy.refuses(Run(known)) is None
        run = strategy.redraw(Run(known))
        denoising = [v for v in visits(run) if v.call.component == "transformer"]
        assert sum(v.step.repeat for v in denoising) == each * (STEPS - zeros)
        assert all(v.call.variant == (ZEROED,) for v in denoising)


@pytest.mark.wide
def test_of_two_denoisers_the_first_has_steps_to_spare() -> None:
    known = facts(build("wan22"), call_of("wan22") | {"num_inference_steps": 6}, "cfg_zero_star:transformer")
    calls = []
    for names in ((), ("transformer",), ("transformer", "transformer_2")):
        run = Run(known)
        for name in names:
            run = CfgZeroStar(name).redraw(run)
        steps = [v.step.repeat for v in visits(run) if v.call.component.startswith("transformer")]
        calls.append(sum(steps))
    assert calls == [12, 10, 10]


@pytest.mark.slow
def test_the_peak_is_that_of_the_plain_call() -> None:
    plain, scaled = made(traced(build("sd3"), call_of("sd3"), "cfg_zero_star", device="cpu"), "transformer", ZEROED)
    assert scaled.peak_segment.peak == plain.peak_segment.peak
    assert scaled.flops == plain.flops


# ---- who may ---------------------------------------------------------------------------------------------------------
def refusal(known: Facts, strategy: CfgZeroStar) -> str:
    """The sentence with which it refuses."""
    return strategy.refuses(Run(known)) or ""


def test_refuses_pipelines_that_guide_otherwise() -> None:
    assert "how StableDiffusionXLPipeline guides is not known" in refusal(facts_of(build("sdxl")), CfgZeroStar("unet"))
    with pytest.raises(BadInput, match="how CogVideoXPipeline guides is not known"):
        CfgZeroStar("transformer").apply(build("cogvideox"), "cpu")


def test_refuses_schedulers_of_other_models() -> None:
    pipe = build("sd3")
    pipe.scheduler = diffusers.DDIMScheduler()
    words = "cfg_zero_star: it is for flow matching, and DDIMScheduler is no scheduler of that"
    assert refusal(facts_of(pipe), CfgZeroStar("transformer")) == words
    with pytest.raises(BadInput, match="DDIMScheduler"):
        CfgZeroStar("transformer").apply(pipe, "cpu")
    pipe.scheduler = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    assert refusal(facts_of(pipe), CfgZeroStar("transformer")) == ""


def test_refuses_zeros_that_would_be_divided_by() -> None:
    pipe = build("qwenimage")
    words = "QwenImagePipeline divides by the norm of what it guides: set zero_init=0"
    assert words in refusal(facts_of(pipe), CfgZeroStar("transformer"))
    with pytest.raises(BadInput, match="set zero_init=0"):
        CfgZeroStar("transformer").apply(pipe, "cpu")
    assert [s.zero_init for s in CfgZeroStar.variants(facts_of(pipe))] == [0]
    assert "0 or more" in refusal(facts_of(build("sd3")), CfgZeroStar("transformer", -1))


@pytest.mark.slow
def test_refuses_a_call_without_guidance() -> None:
    known = facts(build("flux"), inputs("flux"), "cfg_zero_star:transformer")
    said = refusal(known, CfgZeroStar("transformer"))
    assert said == "transformer cannot be guided by CFG-Zero*: this call makes no second pass"


def test_it_is_never_picked() -> None:
    found = recommend(facts_of(build("sd3")), [CfgZeroStar, OnGpu])
    assert not any(s.name == "cfg_zero_star" for plan in found.front for s in plan.strategies)
    (left,) = (d for d in found.dropped if d.what == "cfg_zero_star:transformer")
    assert left.reason == "it changes the picture; to have it all the same, name cfg_zero_star"
