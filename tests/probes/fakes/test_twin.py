"""A twin is fake throughout, runs like the original, and leaves the original as it was."""

import copy
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from diffusers.hooks import apply_group_offloading, apply_layerwise_casting
from torch._subclasses.fake_tensor import FakeTensor

from memplan.probes.fakes.twin import live_twin, modules_of
from memplan.probes.trace import dry_run
from tests.pipelines import FAMILIES, build, inputs
from tests.some import some

CPU = torch.device("cpu")


def anatomy(pipe: Any) -> dict[str, Any]:
    """Everything about a pipeline that a careless copy could disturb, by identity where there is one."""
    parts: dict[str, Any] = {
        "pipe": {key: id(value) for key, value in pipe.__dict__.items()},
        "config": dict(pipe.config),
    }
    parts["scheduler"] = copy.deepcopy({k: v for k, v in vars(pipe.scheduler).items() if not torch.is_tensor(v)})
    for key, component in modules_of(pipe).items():
        for path, module in component.named_modules():
            parts[f"{key}.{path}"] = {name: id(value) for name, value in module.__dict__.items()}
            parts[f"{key}.{path} hooks"] = [
                dict(module._forward_hooks),
                dict(module._forward_pre_hooks),
                module.training,
            ]
        for path, tensor in (*component.named_parameters(), *component.named_buffers()):
            parts[f"{key}.{path} tensor"] = (id(tensor), tensor.data_ptr(), tensor.dtype, tensor.requires_grad)
    return parts


def tensors(pipe: Any) -> dict[str, torch.Tensor]:
    """The parameters and buffers of all components by path, tied ones under each of their names."""
    named: dict[str, torch.Tensor] = {}
    for key, component in modules_of(pipe).items():
        named.update({f"{key}.{path}": t for path, t in component.named_parameters(remove_duplicate=False)})
        named.update({f"{key}.{path}": t for path, t in component.named_buffers(remove_duplicate=False)})
    return named


@pytest.mark.parametrize("family", some(FAMILIES, "flux", "sdxl", "wan22"))
def test_the_original_is_untouched(family: str) -> None:
    pipe = build(family)
    first = pipe(**inputs(family))[0]
    before = anatomy(pipe)
    twin = live_twin(pipe)
    dry_run(twin, inputs(family))
    assert anatomy(pipe) == before
    assert torch.equal(pipe(**inputs(family))[0], first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", some(FAMILIES, "flux", "sdxl", "wan22"))
def test_weights_are_fake_and_of_the_same_make(family: str, dtype: torch.dtype) -> None:
    pipe = build(family, dtype=dtype)
    twin = live_twin(pipe)
    ours, theirs = tensors(twin.pipe), tensors(pipe)
    assert {k: (t.shape, t.dtype) for k, t in ours.items()} == {k: (t.shape, t.dtype) for k, t in theirs.items()}
    for fake in ours.values():
        assert isinstance(fake, FakeTensor)
        assert fake.fake_mode is twin.mode
        assert fake.device == CPU
        assert not fake.requires_grad


def test_what_a_twin_says_of_itself() -> None:
    pipe = build("flux")
    twin = live_twin(pipe)
    assert (twin.name, twin.source) == ("FluxPipeline", "live FluxPipeline")
    assert type(twin.pipe) is type(pipe)
    assert list(twin.components()) == list(modules_of(pipe))
    assert twin.pipe.device == twin.pipe._execution_device == CPU
    assert twin.pipe.scheduler is not pipe.scheduler
    assert twin.pipe.scheduler.config == pipe.scheduler.config


def test_tied_weights_stay_tied() -> None:
    encoder = live_twin(build("flux")).pipe.text_encoder_2
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight


def test_a_component_that_is_there_twice_stays_one() -> None:
    pipe = build("wan22")
    pipe.__dict__["transformer_2"] = pipe.transformer
    twin = live_twin(pipe)
    assert twin.pipe.transformer_2 is twin.pipe.transformer


def test_tiling_is_kept() -> None:
    pipe = build("sdxl")
    pipe.vae.enable_tiling()
    assert live_twin(pipe).pipe.vae.use_tiling


def test_fake_weights_can_be_cast() -> None:
    twin = live_twin(build("sdxl", dtype=torch.float16))
    weight = twin.pipe.vae.post_quant_conv.weight
    twin.pipe.vae.to(torch.float32)
    assert {t.dtype for t in twin.pipe.vae.parameters()} == {torch.float32}
    assert twin.pipe.vae.post_quant_conv.weight is weight


def test_compiled_components_are_unwrapped() -> None:
    pipe = build("flux")
    pipe.transformer = torch.compile(pipe.transformer)
    assert type(live_twin(pipe).pipe.transformer).__name__ == "FluxTransformer2DModel"


# ---- hooks ----------------------------------------------------------------------------------------------------------
def hooked(module: torch.nn.Module) -> list[str]:
    """Modules that still carry a hook or a forward of their own."""
    names = {"_hf_hook", "_old_forward", "_diffusers_hook", "forward"}
    return [path for path, part in module.named_modules() if names & set(part.__dict__)]


def test_hooks_of_accelerate_stay_behind() -> None:
    pipe = build("sdxl")
    for part in pipe.unet.modules():
        add_hook_to_module(part, AlignDevicesHook(execution_device="cpu", io_same_device=True))
    before = anatomy(pipe)
    twin = live_twin(pipe)
    assert not hooked(twin.pipe.unet)
    assert len(dry_run(twin, inputs("sdxl")).calls) > 1
    assert anatomy(pipe) == before


@pytest.mark.parametrize("level", ["leaf_level", "block_level"])
def test_group_offloading_stays_behind(level: str) -> None:
    pipe = build("flux")
    apply_group_offloading(pipe.transformer, CPU, CPU, offload_type=level, num_blocks_per_group=1)
    before = anatomy(pipe)
    twin = live_twin(pipe)
    assert not hooked(twin.pipe.transformer)
    dry_run(twin, inputs("flux"))
    assert anatomy(pipe) == before


def test_layerwise_casting_is_put_back() -> None:
    pipe = build("flux", dtype=torch.bfloat16)
    apply_layerwise_casting(pipe.transformer, torch.float8_e4m3fn, torch.bfloat16)
    twin = live_twin(pipe)
    transformer = twin.pipe.transformer
    assert {k: t.dtype for k, t in transformer.named_parameters()} == {
        k: t.dtype for k, t in pipe.transformer.named_parameters()
    }
    assert transformer.dtype == torch.bfloat16
    dry_run(twin, inputs("flux"))
    assert transformer.transformer_blocks[0].ff.net[2].weight.dtype == torch.float8_e4m3fn


def test_hooks_of_the_user_do_not_run() -> None:
    pipe = build("flux")
    seen: list[str] = []
    pipe.transformer.register_forward_hook(lambda *_: seen.append("after"))
    pipe.transformer.register_forward_pre_hook(lambda *_: seen.append("before"))
    dry_run(live_twin(pipe), inputs("flux"))
    assert seen == []
