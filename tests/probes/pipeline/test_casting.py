"""Which weights layerwise casting stores in 8 bits: those that the library casts, and none where it would break."""

import diffusers
import pytest
import torch
import transformers
from diffusers.hooks import apply_layerwise_casting
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.probes.pipeline import measure
from tests.pipelines import FAMILIES, build
from tests.probes.full_size import full_size
from tests.probes.pipeline.test_pipeline import of


@pytest.mark.parametrize(("name", "ratio"), [("flux", 0.636), ("sdxl", 0.500), ("sd3", 0.676), ("wan", 0.509)])
def test_published_ratios(name: str, ratio: float) -> None:
    found = of(full_size(name))
    assert found.cast_size / found.size == pytest.approx(ratio, abs=0.001)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_size_is_that_of_a_component_cast_for_real(family: str) -> None:
    pipe = build(family)
    for component in measure(pipe).components:
        module = getattr(pipe, component.name)
        if component.library == "diffusers":
            module.enable_layerwise_casting(torch.float8_e4m3fn)
        else:
            apply_layerwise_casting(module, torch.float8_e4m3fn, torch.float32, component.cast_skip)
        tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}.values()
        assert component.cast_size == sum(t.numel() * t.element_size() for t in tensors)


def test_t5_keeps_its_embedding_and_wo() -> None:
    found = of(full_size("t5"))
    cast = [found.weights[i].name for i in found.cast]
    assert cast
    assert not [name for name in cast if "shared" in name or "embed" in name or ".wo." in name]
    assert found.cast_skip


def test_a_diffusers_model_brings_its_own_patterns() -> None:
    assert measure(build("flux")).component("transformer").cast_skip == ()


def test_other_text_encoders_are_refused() -> None:
    config = transformers.Qwen3Config(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        head_dim=8, vocab_size=64,
    )  # fmt: skip
    found = of(transformers.Qwen3Model(config))
    assert "Qwen3Model" in (found.lack("layerwise_casting") or "")
    assert found.cast == ()


def test_what_is_cast_already_is_not_cast_again() -> None:
    pipe = build("sd15")
    pipe.unet.enable_layerwise_casting(torch.float8_e4m3fn)
    found = measure(pipe).component("unet")
    assert "already" in (found.lack("layerwise_casting") or "")
    assert found.dtype == "float32"


def test_a_vae_that_is_upcast_for_each_decode_is_refused() -> None:
    with FakeTensorMode():
        vae = diffusers.AutoencoderKL(force_upcast=True)
        for module in vae.modules():
            for key, weight in module._parameters.items():
                module._parameters[key] = weight if weight is None else torch.nn.Parameter(weight.half())
    assert "float32" in (of(vae).lack("layerwise_casting") or "")
