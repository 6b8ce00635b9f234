"""What cannot be differentiated is refused, with the reason and the cure."""

from typing import Any

import diffusers
import pytest
import torch

import memplan
from memplan.applier import apply
from memplan.errors import BadInput, Unsupported
from memplan.faces.sampling.reach import nodes, reached
from memplan.faces.sampling.refusals import check_pipeline, without_no_grad
from memplan.strategies import BatchedGuidance, GroupOffload, LayerwiseCasting
from tests.pipelines import build
from tests.sampling.solved import call_of, loss_of, only_the_denoiser, solved

LETTING_GO = ("WanAnimatePipeline", "LEditsPPPipelineStableDiffusion", "Cosmos2_5_TransferPipeline")
"""Pipelines of diffusers that detach in their loops."""


@pytest.mark.parametrize("output_type", ["pil", "np"])
def test_pictures_that_are_no_tensors(output_type: str) -> None:
    pipe = build("flux")
    with memplan.differentiable(pipe), pytest.raises(BadInput, match='give "pt" for pictures or "latent" for latents'):
        pipe(**call_of("flux", output_type=output_type))


def test_the_default_of_a_pipeline_is_no_tensor_either() -> None:
    pipe, call = build("flux"), call_of("flux")
    del call["output_type"]
    with memplan.differentiable(pipe), pytest.raises(BadInput, match='output_type="pil" leaves torch'):
        pipe(**call)


@pytest.mark.parametrize("options", [{"checkpoint": "steps"}, {"last": 0}, {"last": True}, {"last": 1.5}])
def test_options_that_mean_nothing(options: dict[str, Any]) -> None:
    with (
        pytest.raises(BadInput, match=r"or None, not|1 or more, not"),
        memplan.differentiable(build("flux"), **options),
    ):
        pass


def test_what_is_no_pipeline() -> None:
    with pytest.raises(BadInput, match="Linear is no pipeline"), memplan.differentiable(torch.nn.Linear(1, 1)):
        pass
    with pytest.raises(BadInput, match=r"Linear has no method sample\(\)"):
        check_pipeline(torch.nn.Linear(1, 1), "sample")


def test_blocks_that_are_not_modular() -> None:
    with pytest.raises(Unsupported, match="not modular"), memplan.differentiable(build("modular_flux")):
        pass


@pytest.mark.parametrize("name", LETTING_GO)
def test_pipelines_that_detach(name: str) -> None:
    kind = getattr(diffusers, name)
    with pytest.raises(Unsupported, match=rf"{name}.__call__\(\) lets go of gradients on its way: .*detach\(\)"):
        check_pipeline(kind.__new__(kind), "__call__")


def test_pipelines_that_call_others() -> None:
    pipe = build("flux")
    pipe.prior_pipe = build("flux")
    with pytest.raises(Unsupported, match="calls pipelines of its own, prior_pipe"), memplan.differentiable(pipe):
        pass


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (GroupOffload("transformer"), "transformer is offloaded"),
        (LayerwiseCasting("transformer"), "transformer is cast layer by layer"),
    ],
)
def test_weights_that_are_not_there_in_backward(strategy: Any, words: str) -> None:
    pipe = build("flux")
    with apply([strategy], pipe, "cpu"), pytest.raises(Unsupported, match=words), memplan.differentiable(pipe):
        pass


def test_what_goes_by_earlier_calls_cannot_be_computed_again() -> None:
    pipe = only_the_denoiser(build("wan"))
    expected = solved(pipe, call_of("wan"))[1]
    with apply([BatchedGuidance("transformer")], pipe, "cpu"):
        found = solved(pipe, call_of("wan"))[1]
        with pytest.raises(Unsupported, match="goes by earlier calls"):
            solved(pipe, call_of("wan"), checkpoint="step")
    assert all(torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-6) for name in expected)


def test_inference_mode() -> None:
    pipe = build("flux")
    with torch.inference_mode(), memplan.differentiable(pipe), pytest.raises(BadInput, match="inference_mode"):
        pipe(**call_of("flux"))


def test_a_call_inside_of_no_grad_keeps_gradients() -> None:
    pipe = only_the_denoiser(build("flux"))
    with torch.no_grad(), memplan.differentiable(pipe):
        result = pipe(**call_of("flux"))
        assert not torch.is_grad_enabled()
    loss_of(result).backward()
    assert pipe.transformer.proj_out.weight.grad is not None


def test_a_call_in_which_nothing_asks_for_gradients() -> None:
    pipe = only_the_denoiser(build("flux"))
    pipe.transformer.requires_grad_(False)
    with memplan.differentiable(pipe), pytest.raises(BadInput, match="requires a gradient"):
        pipe(**call_of("flux"))


def test_code_that_lets_go_without_saying_so() -> None:
    pipe = only_the_denoiser(build("flux"))

    def detaching(pipe: Any, number: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        return {"latents": values["latents"].detach()} if number == 1 else {}

    with memplan.differentiable(pipe), pytest.raises(Unsupported, match="lets go of the gradients of 2 of 4 forwards"):
        pipe(**call_of("flux", callback_on_step_end=detaching))


def test_steps_that_were_not_foreseen() -> None:
    pipe = only_the_denoiser(build("flux"))

    def stopping(pipe: Any, number: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = number == 1
        return {}

    with memplan.differentiable(pipe, last=1), pytest.raises(Unsupported, match="made 2 steps where 4 were foreseen"):
        pipe(**call_of("flux", callback_on_step_end=stopping))


def test_what_was_written_to_cannot_be_computed_again() -> None:
    pipe = only_the_denoiser(build("flux"))

    def writing(pipe: Any, number: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            values["prompt_embeds"].mul_(1.5)
        return {}

    call = call_of("flux", callback_on_step_end=writing, callback_on_step_end_tensor_inputs=["prompt_embeds"])
    with memplan.differentiable(pipe, checkpoint="step"):
        loss = loss_of(pipe(**call))
        with pytest.raises(Unsupported, match="has been written to since"):
            loss.backward()


def test_a_picture_that_is_checked_leaves_torch() -> None:
    pipe = only_the_denoiser(build("sd15"))
    pipe.run_safety_checker = lambda image, *rest: (image.numpy(), None)
    with memplan.differentiable(pipe), pytest.raises(Unsupported, match='give output_type="latent"'):
        pipe(**call_of("sd15", output_type="pt", num_inference_steps=1))


def test_experts_that_run_without_gradients_in_eval_mode() -> None:
    from diffusers.models.transformers.transformer_hidream_image import MOEFeedForwardSwiGLU

    experts = MOEFeedForwardSwiGLU(dim=8, hidden_dim=16, num_routed_experts=2, num_activated_experts=2)
    torch.nn.init.normal_(experts.gate.weight)
    pipe = only_the_denoiser(build("flux"))
    pipe.transformer.experts = experts
    for training in (True, False):
        experts.train(training)
        experts(torch.randn(1, 4, 8)).sum().backward()
        grads = [weight.grad for weight in experts.experts.parameters()]
        assert all(grad is not None for grad in grads) is training  # which is the reason
        experts.zero_grad(set_to_none=True)
    with memplan.differentiable(pipe), pytest.raises(Unsupported, match=r"in eval mode: call train\(\)"):
        pipe(**call_of("flux"))


# ---- the graph -------------------------------------------------------------------------------------------------------
def test_calls_that_are_reached_are_counted() -> None:
    weight = torch.ones(2, requires_grad=True)
    used, unused, written = weight * 2, weight * 3, weight * 4
    calls = [nodes(value) for value in (used, unused, {"sample": [written]})]
    written.add_(1)
    assert reached((used + written,), calls) == 2
    assert reached([used.detach()], calls) == 0


def test_only_the_layers_down_to_no_grad_are_taken_off() -> None:
    def inner() -> bool:
        return torch.is_grad_enabled()

    assert without_no_grad(torch.no_grad()(torch.no_grad()(inner))) is inner
    assert without_no_grad(inner) is inner
