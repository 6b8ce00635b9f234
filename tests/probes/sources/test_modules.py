"""Modules without a pipeline are planned for one call each, and are what the plan is applied to."""

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

import memplan
from memplan.errors import BadInput
from memplan.probes.sources import open_pipeline
from memplan.probes.sources.modules import as_pipeline
from memplan.probes.trace import dry_run
from memplan.registry import strategies
from tests.pipelines import build

POSITION_IDS = 77 * 8
"""Bytes of the one buffer of a CLIP text model."""
LITTLE = memplan.Target(vram=0.55, ram=16)
"""Too little for the weights of the larger backbone, 64 MiB, beside the device context."""
TARGET = memplan.Target(vram=8, ram=16)


def backbone(layers: int = 4, width: int = 256) -> nn.Sequential:
    """A network that no library knows."""
    return nn.Sequential(*itertools.chain(*((nn.Linear(width, width), nn.GELU()) for _ in range(layers)))).eval()


def text_model() -> CLIPTextModel:
    """A model of transformers."""
    config = CLIPTextConfig(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    return CLIPTextModel(config).eval()


def test_one_module_is_called_once() -> None:
    twin = open_pipeline(backbone())
    trace = dry_run(twin, {"input": torch.zeros(16, 256)}, "cpu")
    assert [(call.component, call.method) for call in trace.calls if call.component] == [("model", "forward")]
    peak = max(segment.peak for call in trace.calls for segment in call.segments)
    assert peak == 2 * 16 * 256 * 4
    assert twin.source == "live Sequential"


def test_its_arguments_are_on_the_device_too() -> None:
    trace = dry_run(open_pipeline(backbone()), {"input": torch.zeros(16, 256)}, "cpu")
    assert [call.base for call in trace.calls if call.component] == [16 * 256 * 4]


def test_what_makes_sense_is_offered() -> None:
    found = memplan.recommend(backbone(16, 1024), target=LITTLE, input=torch.zeros(16, 1024))
    names = {strategy.name for kind in strategies() for strategy in kind.variants(found.facts)}
    assert {"on_gpu", "group_offload", "sequential_offload"} <= names
    assert "vae_tiling" not in names


def test_a_model_of_transformers() -> None:
    ids = torch.zeros(1, 7, dtype=torch.long)
    found = memplan.recommend(text_model(), target=TARGET, input_ids=ids)
    assert found.facts.model.components[0].library == "transformers"
    assert found.facts.trace.arguments == (("input_ids", "tensor(1, 7)"),)


def test_a_wrong_argument() -> None:
    with pytest.raises(BadInput, match=r"Sequential refuses this call: no argument 'inputs'\. Did you mean input\?"):
        memplan.recommend(backbone(), target=TARGET, inputs=torch.zeros(16, 256))


def test_a_wrong_shape() -> None:
    with pytest.raises(BadInput, match="Sequential refuses this call"):
        memplan.recommend(backbone(), target=TARGET, input=torch.zeros(16, 3))


def test_several_are_called_in_order_with_their_own_arguments() -> None:
    parts = {"text_encoder": text_model(), "transformer": backbone(), "unused": backbone(1)}
    calls = {"transformer": {"input": torch.zeros(4, 256)}, "text_encoder": {"input_ids": torch.zeros(1, 7).long()}}
    trace = dry_run(open_pipeline(parts), calls)
    assert [call.component for call in trace.calls if call.component] == ["text_encoder", "transformer"]
    model = memplan.probe(parts)
    assert [part.name for part in model.components] == list(parts)
    assert model.size == sum(p.numel() * 4 for m in parts.values() for p in m.parameters()) + POSITION_IDS


def test_parts_of_a_pipeline() -> None:
    pipe = build("sd15")
    text = torch.zeros(1, 7, pipe.unet.config.cross_attention_dim)
    latent = {"sample": torch.zeros(1, 4, 8, 8), "timestep": torch.tensor(1), "encoder_hidden_states": text}
    plan = memplan.price({"unet": pipe.unet}, ["layerwise_casting:unet"], target=TARGET, unet=latent)
    assert plan.run.stored("unet").format == "float8_e4m3fn"


@pytest.mark.parametrize("source", [{}, {"a": 3}, {3: nn.Linear(1, 1)}, {"a b": nn.Linear(1, 1)}], ids=str)
def test_tables_of_something_else(source: Any) -> None:
    with pytest.raises(BadInput, match="table of modules"):
        open_pipeline(source)


@pytest.mark.parametrize("given", [torch.zeros(4, 256), (torch.zeros(4, 256),), [torch.zeros(4, 256)]], ids=type)
def test_arguments_without_names_are_told_how_to_be_given(given: Any) -> None:
    kind = type(given).__name__
    with pytest.raises(BadInput, match=rf'^net is a {kind}: give .* by name, as in net={{"input": …}}$'):
        memplan.recommend({"net": backbone()}, target=TARGET, net=given)


def hooked(module: nn.Module) -> bool:
    hooks = ("_diffusers_hook", "_hf_hook")
    return any(part._forward_pre_hooks or any(hasattr(part, hook) for hook in hooks) for part in module.modules())


def test_optimized_and_back() -> None:
    module, tensor = backbone(16, 1024), torch.randn(16, 1024)
    expected = module(tensor)
    less = memplan.Target(vram=0.05, ram=16)  # a CPU has no device context
    with memplan.auto_optimize(module, prefer="quality", target=less, device="cpu", input=tensor) as applied:
        assert applied.strategies[0].name in ("group_offload", "partial_residency", "sequential_offload")
        assert hooked(module)
        assert torch.equal(module(tensor), expected)
    assert not hooked(module)
    assert torch.equal(module(tensor), expected)


def test_a_pipeline_stays_what_it_is() -> None:
    pipe = build("sd15")
    assert as_pipeline(pipe) is pipe
