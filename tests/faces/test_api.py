"""The Python face on live pipelines: what it answers, what it does, and what it leaves alone."""

import random
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch.nn.modules import module as torch_module

import memplan
from memplan import planner
from memplan.errors import BadInput, NoGpu, NothingFits
from memplan.faces import api
from memplan.facts import GIB, MIB
from memplan.probes.fakes.twin import modules_of
from tests.pipelines import build, inputs

ROOM = api.Target(vram=4, ram=8)
SCARCE = api.Target(vram=80 / 1024, ram=8)
"""Less than a medium FLUX weighs."""
STREAMED = api.Target(vram=(590 + 80) / 1024, ram=8)
"""As little on a card, whose context takes 590 MiB."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(pipe: Any, family: str) -> torch.Tensor:
    """The output of one small call, always from the same seed."""
    output: torch.Tensor = pipe(**inputs(family))[0]
    return output


def asked(family: str, **other: Any) -> dict[str, Any]:
    """The arguments of one small call, and others."""
    return inputs(family) | other


def footprint(pipe: Any) -> dict[str, Any]:
    """Names of all attributes and hooks of the pipeline's modules; where each weight is and how it is stored."""
    found: dict[str, Any] = {"pipe": sorted(vars(pipe))}
    for name, part in modules_of(pipe).items():
        for path, module in part.named_modules():
            hooks = [len(module._forward_hooks), len(module._forward_pre_hooks)]
            found[f"{name}.{path}"] = (sorted(vars(module)), hooks, module.training)
        for path, weight in part.state_dict(keep_vars=True).items():
            found[f"{name}.{path} weight"] = (weight.data_ptr(), weight.dtype, weight.device, weight.requires_grad)
    return found


# ---- what is asked ---------------------------------------------------------------------------------------------------
def test_probe_measures_a_live_pipeline() -> None:
    pipe = build("wan")
    model = api.probe(pipe)
    assert (model.class_name, model.source) == ("WanPipeline", "live WanPipeline")
    parts = modules_of(pipe)
    assert [c.name for c in model.components] == list(parts)
    part = parts["transformer"]
    assert model.component("transformer").size == sum(w.nbytes for w in (*part.parameters(), *part.buffers()))


def test_recommend_answers_for_the_machine_that_is_named(cache: Path) -> None:
    found = api.recommend(build("flux"), target=api.Target(vram=4, ram=8, reserve=1), **inputs("flux"))
    machine = found.facts.machine
    assert (machine.vram, machine.ram) == (3 * GIB, 8 * GIB)
    assert dict(found.picks).keys() == set(planner.PREFERENCES)
    assert not cache.exists(), "a live pipeline may change between two calls"


def test_price_is_the_bill_that_recommend_shows() -> None:
    pipe, call, target = build("flux"), inputs("flux"), api.Target(vram=0.5917, ram=8)
    pick = api.recommend(pipe, target=target, **call).pick("quality")
    assert pick is not None
    assert any(s.name != "on_gpu" for s in pick.strategies)
    assert api.price(pipe, pick.strategies, target=target, **call).bill == pick.bill
    assert api.price(pipe, str(pick), target=target, **call).bill == pick.bill
    assert api.price(pipe, [str(pick)], target=target, **call).bill == pick.bill
    assert api.price(pipe, pick, target=target, **call).bill == pick.bill
    with pytest.raises(BadInput, match="tiles of the library's own size change nothing at this size"):
        api.price(pipe, ["model_offload", "vae_tiling"], target=target, **call)


def test_a_size_that_the_pipeline_chose_is_told() -> None:
    call = {k: v for k, v in inputs("sd15").items() if k not in ("height", "width")}
    pipe = build("sd15")
    shown = dict(api.recommend(pipe, target=ROOM, **call).facts.trace.arguments)
    image = pipe(**call)[0]
    assert (shown["height"], shown["width"]) == (str(image.shape[-2]), str(image.shape[-1]))
    assert (shown["num_images_per_prompt"], shown["num_inference_steps"]) == ("1", "2")


def test_frames_that_the_pipeline_chose_are_told() -> None:
    call = {k: v for k, v in inputs("wan").items() if k != "num_frames"}
    shown = dict(api.recommend(build("wan"), target=ROOM, **call).facts.trace.arguments)
    assert shown["num_frames"] == "81"
    assert (shown["height"], shown["width"]) == ("32", "32")


def test_frames_that_the_pipeline_reads_from_its_model_are_told() -> None:
    pipe, call = build("cogvideox"), {k: v for k, v in inputs("cogvideox").items() if k != "num_frames"}
    shown = dict(api.recommend(pipe, target=ROOM, **call).facts.trace.arguments)
    assert shown["num_frames"] == str(pipe(**call)[0].shape[1])


def test_a_call_without_a_prompt_gets_a_usual_one() -> None:
    call = {k: v for k, v in inputs("flux").items() if k != "prompt"}
    shown = dict(api.recommend(build("flux"), target=ROOM, **call).facts.trace.arguments)
    assert shown["prompt"].startswith("'A lighthouse")


def test_a_pipeline_that_takes_no_prompt_gets_none() -> None:
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    found = api.recommend(DDPMPipeline(unet, DDPMScheduler()), target=ROOM, num_inference_steps=2)
    assert dict(found.facts.trace.arguments) == {"num_inference_steps": "2"}
    assert found.facts.model.size == sum(4 * p.numel() for p in unet.parameters())


# ---- what is refused -------------------------------------------------------------------------------------------------
def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^FluxPipeline .*'heigth'"):
        api.recommend(build("flux"), target=ROOM, **inputs("flux"), heigth=32)


def test_a_size_is_refused_in_the_pipelines_words() -> None:
    pipe, call = build("cogvideox"), asked("cogvideox", height=33)
    with pytest.raises(ValueError, match="divisible by 8") as words:
        pipe(**call)
    with pytest.raises(BadInput, match=re.escape(str(words.value))):
        api.recommend(pipe, target=ROOM, **call)


def test_python_is_told_what_python_takes() -> None:
    with pytest.raises(NoGpu, match=r'called "RTX 4071".* target=memplan\.Target\(vram=12\)') as said:
        api.machine(api.Target(gpu="RTX 4071"))
    assert "--" not in str(said.value)


@pytest.mark.parametrize("target", ["RTX 4070", None, 12])
def test_a_target_that_is_none_is_told_how_to_be_written(target: Any) -> None:
    name = "RTX 4070"
    with pytest.raises(BadInput, match=rf'write target=memplan\.Target\(gpu="{name}"\)$'):
        memplan.recommend("flux.1-dev", target=target)


@pytest.mark.parametrize("plan", [3, [3], {"model_offload"}, None])
def test_what_is_no_plan_is_refused_before_any_work(plan: Any) -> None:
    with pytest.raises(BadInput, match='give text, as "vae_tiling:vae'):
        memplan.price("nowhere", plan)


def test_an_unknown_preference_is_refused_before_any_work() -> None:
    with pytest.raises(BadInput, match="unknown preference 'fast': use one of quality, speed, memory, balanced"):
        memplan.auto_optimize(None, prefer="fast")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to plan for")
def test_without_a_gpu_one_must_be_named() -> None:
    with pytest.raises(BadInput, match=r"No GPU is visible here .* target=memplan\.Target\(gpu="):
        api.recommend(build("flux"), **inputs("flux"))


# ---- what is left alone ----------------------------------------------------------------------------------------------
@contextmanager
def unchanged(pipe: Any, generator: torch.Generator) -> Generator[None]:
    """Checks that nothing was touched that a later call could notice."""

    def state() -> tuple[Any, ...]:
        torch_state = torch.get_rng_state().tolist(), torch.get_default_dtype(), torch.is_grad_enabled()
        hooks = torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks
        modes = torch._C._len_torch_dispatch_stack(), torch._C._len_torch_function_stack()
        chance = random.getstate(), str(np.random.get_state()), generator.get_state().tolist()
        return *torch_state, *(dict(table) for table in hooks), *modes, *chance, footprint(pipe)

    before = state()
    yield
    assert state() == before


@pytest.mark.parametrize("with_generator", [True, False])
@pytest.mark.parametrize("family", ["flux", "wan"])
def test_recommend_changes_nothing(family: str, with_generator: bool) -> None:
    pipe, call = build(family), inputs(family)
    generator = call["generator"]
    if not with_generator:
        del call["generator"]
    with unchanged(pipe, generator):
        api.recommend(pipe, target=ROOM, **call)


def test_a_refused_call_changes_nothing() -> None:
    pipe, call = build("cogvideox"), inputs("cogvideox")
    with unchanged(pipe, call["generator"]), pytest.raises(BadInput):
        api.recommend(pipe, target=ROOM, **asked("cogvideox", height=33))
    with unchanged(pipe, call["generator"]), pytest.raises(BadInput):
        api.recommend(pipe, target=ROOM, **call, negative_prompt_embeds=torch.zeros(1))


# ---- what is done ----------------------------------------------------------------------------------------------------
def test_auto_optimize_applies_the_pick_and_undoes_it() -> None:
    pipe = build("flux", "medium")
    expected, before = picture(pipe, "flux"), footprint(pipe)
    with memplan.auto_optimize(pipe, prefer="quality", target=SCARCE, device="cpu", **inputs("flux")) as applied:
        assert any(s.name != "on_gpu" for s in applied.strategies)
        assert not any(getattr(s, "stream", False) for s in applied.strategies), "a rehearsal on the CPU has no streams"
        assert not applied.irreversible
        assert footprint(pipe) != before
        assert torch.equal(picture(pipe, "flux"), expected)
    assert footprint(pipe) == before
    assert torch.equal(picture(pipe, "flux"), expected)
    assert "stream=true" in str(api.recommend(pipe, target=STREAMED, **inputs("flux")).pick("quality"))


def test_nothing_fits_says_what_is_missing() -> None:
    pipe, call, tiny = build("flux"), inputs("flux"), api.Target(vram=0.25, ram=8)
    before = footprint(pipe)
    nearest = api.recommend(pipe, target=tiny, **call).nearest
    assert nearest.margin < -256 * MIB
    with pytest.raises(NothingFits, match=re.escape(f", {-nearest.margin / MIB:,.0f} MiB more than the 256 MiB")):
        memplan.auto_optimize(pipe, target=tiny, **call)
    assert footprint(pipe) == before
