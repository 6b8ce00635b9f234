"""F5-TTS as its package has it: memplan plans for its backbones, and gradients come through its sampling."""

from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
import torch

import memplan
from memplan.applier import apply
from memplan.errors import BadInput
from memplan.facts import Trace
from memplan.probes.sources import open_pipeline
from memplan.probes.sources.modules import as_pipeline
from memplan.probes.trace import dry_run
from memplan.strategies import CfgZeroStar
from tests.accuracy.measured import peak_of
from tests.sampling import f5
from tests.sampling.solved import equal, gradients

pytestmark = pytest.mark.skipif(bool(f5.missing()), reason=f5.missing())
zero_star: Any = import_module("memplan.strategies.live.zero_star")
CARD = memplan.Target(vram=4, ram=8)


def solved(model: Any, **options: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What `sample()` gives, and the gradients of the model."""
    with memplan.differentiable(model, "sample", **options):
        sound, _ = model.sample(**f5.sampled())
        sound.square().mean().backward()
    return sound.detach(), gradients(model)


# ---- planning --------------------------------------------------------------------------------------------------------
def traced(net: Any) -> Trace:
    """A dry run of one forward."""
    return dry_run(open_pipeline({"net": net}), {"net": f5.forward()}, device="cpu")


@pytest.mark.parametrize("kind", f5.BACKBONES)
def test_a_forward_is_predicted(kind: str) -> None:
    net = f5.backbone(kind)
    with torch.no_grad():
        measured = peak_of(lambda: net(**f5.forward()))[1]
    arguments = sum(value.nbytes for value in f5.forward().values())
    predicted = next(call.peak_segment.peak for call in traced(net).calls if call.component == "net")
    assert predicted == pytest.approx(measured - arguments, rel=0.02)


@pytest.mark.parametrize("kind", f5.BACKBONES)
def test_a_plan_is_found_and_applied(kind: str) -> None:
    net = f5.backbone(kind)
    expected = net(**f5.forward())
    assert memplan.recommend({"net": net}, target=CARD, cache=False, net=f5.forward()).pick("quality") is not None
    applied = memplan.auto_optimize({"net": net}, "group_offload:net", target=CARD, device="cpu", net=f5.forward())
    assert torch.equal(net(**f5.forward()), expected)
    assert any("_diffusers_hook" in vars(module) for module in net.modules())
    applied.undo()
    assert torch.equal(net(**f5.forward()), expected)


def test_compiling_is_refused() -> None:
    net = f5.backbone("DiT")
    with pytest.raises(BadInput, match="compile is for models of diffusers, and DiT is none"):
        memplan.price({"net": net}, "compile:net", target=CARD, cache=False, net=f5.forward())


# ---- gradients -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", f5.BACKBONES)
def test_gradients_come_through_sampling(kind: str) -> None:
    model = f5.cfm(kind)
    expected, _ = model.sample(**f5.sampled())
    assert not expected.requires_grad
    sound, grads = solved(model)
    assert torch.allclose(sound, expected, atol=1e-6)
    assert all(bool(grad.isfinite().all()) for grad in grads.values())
    assert sum(bool(grad.any()) for grad in grads.values()) >= 0.95 * len([*model.parameters()])
    assert model.transformer.text_cond is None
    assert model.transformer.text_uncond is None
    assert equal(grads, solved(model, checkpoint="step")[1])
    assert torch.equal(model.sample(**f5.sampled())[0], expected)


def test_training_stays_on_though_sampling_calls_eval() -> None:
    model = f5.cfm("DiT").train()
    torch.manual_seed(0)
    dropped, _ = solved(model)
    assert all(module.training for module in model.modules())
    sound, _ = model.sample(**f5.sampled())
    assert not torch.allclose(dropped, sound, atol=1e-4)
    assert not any(module.training for module in model.modules())  # outside it does as it always did


def test_modes_are_as_before_after_an_error() -> None:
    model, own = f5.cfm("DiT").train(), type(f5.cfm("DiT")).sample
    with memplan.differentiable(model, "sample"), pytest.raises(TypeError, match="nothing_of_the_kind"):
        model.sample(**f5.sampled(), nothing_of_the_kind=True)
    assert all(module.training and "train" not in vars(module) for module in model.modules())
    assert type(model).sample is own


def test_its_steps_are_not_a_schedulers() -> None:
    model = f5.cfm("DiT")
    with pytest.raises(BadInput, match="CFM has none"), memplan.differentiable(model, "sample", last=1):
        pass
    with pytest.raises(memplan.Unsupported, match='give checkpoint="step"'):
        solved(model, checkpoint="block")


# ---- guidance --------------------------------------------------------------------------------------------------------
def test_cfg_zero_star_holds_for_its_guidance() -> None:
    model, call = f5.cfm("DiT"), f5.sampled()
    strength = call["cfg_strength"]
    handle = model.transformer.register_forward_hook(lambda module, args, result: rescaled(result))
    _, trajectory = model.sample(**call)
    handle.remove()
    for number, (here, there) in enumerate(pairwise(trajectory)):
        conditional, unconditional = passes(model, here, number / f5.STEPS)
        alpha = (conditional * unconditional).sum() / unconditional.square().sum()
        velocity = alpha * unconditional + (1 + strength) * (conditional - alpha * unconditional)
        assert torch.allclose((there - here) * f5.STEPS, velocity, atol=1e-3)


def rescaled(result: torch.Tensor) -> torch.Tensor:
    """Both passes, of which F5-TTS has the conditional one first, with the other one scaled."""
    conditional, unconditional = result.chunk(2)
    return torch.cat([conditional, zero_star.scaled(conditional, unconditional)])


def passes(model: Any, here: torch.Tensor, time: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What the backbone makes of `here` with the prompt and without."""
    call = f5.sampled()
    cond = torch.nn.functional.pad(call["cond"], (0, 0, 0, f5.FRAMES - f5.FRAMES // 2))
    with torch.no_grad():
        both = model.transformer(x=here, cond=cond, text=call["text"], time=torch.tensor(time), cfg_infer=True)
    conditional, unconditional = both.chunk(2)
    return conditional, unconditional


def test_as_a_technique_it_is_for_pipelines_that_memplan_knows() -> None:
    model = f5.cfm("DiT")
    with pytest.raises(memplan.ApplyFailed, match="how Modules guides is not known"):
        apply([CfgZeroStar("transformer")], as_pipeline({"transformer": model.transformer}), "cpu")
