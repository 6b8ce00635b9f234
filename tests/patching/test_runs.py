"""Patched scripts, run on the CPU with small real pipelines: they leave the pipeline as memplan's own code does."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from memplan.faces.patching.chosen import found
from memplan.faces.patching.patch import patched
from memplan.faces.report.code import script
from memplan.planner import Plan, draw
from memplan.probes.fakes.twin import modules_of
from memplan.probes.pipeline import measure
from memplan.registry import parse_plan
from tests.patching.models import facts
from tests.patching.table import CASES, SNIPPETS
from tests.pipelines import build, inputs
from tests.some import some

IDS = {
    "flux": ("black-forest-labs/FLUX.1-dev",),
    "sdxl": ("stabilityai/stable-diffusion-xl-base-1.0", "models/sdxl"),
    "sd15": ("models/sd15",),
}
FAMILY = {"flux": "flux", "sdxl": "sdxl", "sd15": "sd"}
RUNS = {
    "class_attribute": ("flux", "Painter().pipe", "vae_tiling:vae + group_offload:transformer + group_offload:vae"),
    "conditional_device": ("sd15", "pipe", "vae_slicing:vae"),
    "device_and_dtype": ("sd15", "pipe", "layerwise_casting:unet"),
    "device_of_torch": ("sd15", "pipe", "vae_tiling:vae + group_offload:unet"),
    "from_pipe": ("sdxl", "img2img", "model_offload"),
    "function": ("flux", "load()", "bnb_4bit:text_encoder_2 + int8_weight_only:transformer"),
    "lora_after_the_move": ("flux", "pipe", "sequential_offload"),
    "offload_already_there": ("sdxl", "pipe", "layerwise_casting:unet + on_demand:vae"),
    "quantization_already_there": ("flux", "pipe", "int8_weight_only:transformer + model_offload"),
    "quanto_in_place": ("flux", "pipe", "partial_residency:transformer,streamed=1,level=block_level"),
    "returned_once_moved": ("flux", "pipeline()", "vae_slicing:vae + layerwise_casting:transformer"),
    "statement": ("sdxl", "pipe", "vae_slicing:vae + model_offload"),
    "flux": ("flux", "pipe", "int8_weight_only:text_encoder_2 + group_offload:transformer"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where a small pipeline of each family is saved."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            build(family, dtype=torch.bfloat16).save_pretrained(made[family])
        return made[family]

    return folder


def planned(family: str, folder: Path, text: str) -> Plan:
    model = measure(build(family, dtype=torch.bfloat16), family, f"folder {folder}")
    measured = replace(facts(FAMILY[family]), model=model)
    return draw(measured, parse_plan(text, measured))


@pytest.mark.slow
@pytest.mark.parametrize("name", some(RUNS, "device_of_torch", "function", "statement"))
def test_it_runs_to_the_state_of_the_plan(
    name: str, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    family, expression, text = RUNS[name]
    file, folder = next(p for p in (CASES / f"{name}.py", SNIPPETS / f"{name}.py") if p.exists()), folders(family)
    plan = planned(family, folder, text)
    source = patched(found(file.name, file.read_bytes()), plan).source.decode()
    monkeypatch.chdir(tmp_path)
    pipe = ran(source, family, folder, expression, monkeypatch)
    own = ran(script(plan, str(folder), {}).partition("result = ")[0], family, folder, "pipe", monkeypatch)
    assert state(pipe) == state(own) != state(build(family, dtype=torch.bfloat16))
    call = inputs(family)
    if name != "from_pipe":  # which needs a picture besides
        assert torch.isfinite(torch.as_tensor(pipe(**call).images)).all()


def ran(source: str, family: str, folder: Path, expression: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The pipeline of a script on the CPU; calls that the script makes of it return a picture at once."""
    for known in IDS[family]:
        source = source.replace(f'"{known}"', repr(str(folder)))
    source = source.replace('"cuda"', '"cpu"').replace("torch.cuda.is_available()", "True")
    source = source.replace('torch.device("cpu" if True else "cpu")', 'torch.device("cpu")')
    space: dict[str, Any] = {"__name__": "script"}
    picture = SimpleNamespace(images=[Image.new("RGB", (8, 8))])
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["script.py", "a prompt"])
        patch.setattr(diffusers.FluxPipeline, "load_lora_weights", lambda *_, **__: None)
        patch.setattr(diffusers.FluxPipeline, "set_adapters", lambda *_, **__: None)
        for cls in (*pipelines(), diffusers.StableDiffusionXLImg2ImgPipeline):
            patch.setattr(cls, "__call__", lambda *_, **__: picture)
        exec(source, space)
        return eval(expression, space)


def pipelines() -> list[type]:
    return [diffusers.FluxPipeline, diffusers.StableDiffusionXLPipeline, diffusers.StableDiffusionPipeline]


def state(pipe: Any) -> dict[str, Any]:
    """What techniques leave on components: kinds of weights, their dtypes, hooks and settings."""
    return {name: of_component(part) for name, part in modules_of(pipe).items()}


def of_component(part: Any) -> dict[str, Any]:
    modules = list(part.modules())
    registries = [module._diffusers_hook for module in modules if hasattr(module, "_diffusers_hook")]
    settings = ("use_tiling", "use_slicing", "tile_sample_min_size", "training")
    return {
        "weights": sorted({(type(w).__name__, str(w.dtype), str(w.device)) for w in part.parameters()}),
        "layers": sorted({type(module).__name__ for module in modules}),
        "hooks": sorted(name for registry in registries for name in registry.hooks),
        "accelerate": sorted(type(m._hf_hook).__name__ for m in modules if hasattr(m, "_hf_hook")),
        "forward hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules),
        "streamed": hasattr(part, "_memplan_slots"),
        **{name: getattr(part, name, None) for name in settings},
    }
