"""Arguments of from_pretrained() reach every way of loading that takes them, and others are refused."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import diffusers
import pytest
import torch
import transformers

import memplan
from memplan.errors import BadInput
from memplan.faces.assembled import assembled
from memplan.faces.load import load
from memplan.faces.options import read_options
from memplan.facts import Component, Model, Weight
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.probes.sources.given import with_parts
from tests.pipelines import build, inputs

ROOM = memplan.Target(vram=4, ram=8)
HUB = {"cache_dir": "there", "force_download": False, "local_files_only": True, "proxies": {}, "token": "secret"}
GIVEN = {**HUB, "revision": "v1", "use_safetensors": True, "variant": "fp16"}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Mock]:
    """Every way in which the libraries load a Stable Diffusion 1.5 or a FLUX, by class and method."""
    made = {}
    for cls in (
        diffusers.StableDiffusionPipeline, diffusers.UNet2DConditionModel, diffusers.AutoencoderKL,
        transformers.CLIPTextModel, diffusers.FluxPipeline, diffusers.FluxTransformer2DModel,
        transformers.T5EncoderModel,
    ):  # fmt: skip
        for method in ("from_pretrained", "from_single_file"):
            if hasattr(cls, method):
                made[f"{cls.__name__}.{method}"] = double = Mock()
                monkeypatch.setattr(cls, method, double)
    return made


def part(name: str, kind: Any, file: str = "") -> Component:
    library = kind.__module__.partition(".")[0]
    return Component(name, kind.__name__, library, "bfloat16", (Weight("w", 8, "bfloat16"),), file=file)


def flux(file: str = "", source: str = "bundled flux.1-dev") -> Model:
    """FLUX, whose transformer may come from a file."""
    parts = (
        part("vae", diffusers.AutoencoderKL),
        part("text_encoder", transformers.CLIPTextModel),
        part("text_encoder_2", transformers.T5EncoderModel),
        part("transformer", diffusers.FluxTransformer2DModel, file),
    )
    return Model("flux", "FluxPipeline", parts, source=source)


def stable_diffusion(file: str) -> Model:
    """Stable Diffusion from one file."""
    kinds = {
        "vae": diffusers.AutoencoderKL,
        "text_encoder": transformers.CLIPTextModel,
        "unet": diffusers.UNet2DConditionModel,
    }
    parts = tuple(part(name, kind, file) for name, kind in kinds.items())
    return Model("sd15", "StableDiffusionPipeline", parts, source="bundled sd15")


def took(calls: dict[str, Mock], name: str) -> dict[str, Any]:
    calls[name].assert_called_once()
    return dict(calls[name].call_args.kwargs)


def test_they_reach_what_comes_from_the_pipeline_s_place(calls: dict[str, Mock]) -> None:
    assembled(flux(), Mock(), read_options(GIVEN, None))
    for kind in ("FluxTransformer2DModel", "AutoencoderKL", "CLIPTextModel", "T5EncoderModel", "FluxPipeline"):
        assert GIVEN.items() <= took(calls, f"{kind}.from_pretrained").items()


def test_they_reach_a_component_from_a_file(calls: dict[str, Mock]) -> None:
    assembled(flux("x.safetensors"), Mock(), read_options(GIVEN, None))
    found = took(calls, "FluxTransformer2DModel.from_single_file")
    of_the_config = {"config": "black-forest-labs/FLUX.1-dev", "config_revision": "v1", "subfolder": "transformer"}
    assert found == {**HUB, **of_the_config, "dtype": torch.bfloat16}
    assert GIVEN.items() <= took(calls, "T5EncoderModel.from_pretrained").items()


def test_they_reach_a_pipeline_from_a_file(calls: dict[str, Mock]) -> None:
    assembled(stable_diffusion("x.safetensors"), Mock(), read_options(GIVEN, None))
    found = took(calls, "StableDiffusionPipeline.from_single_file")
    assert {**HUB, "revision": "v1"}.items() <= found.items()
    assert found["config"].endswith("stable-diffusion-v1-5")
    assert {"unet", "vae"} <= found.keys()
    assert not {"use_safetensors", "variant"} & found.keys()
    assert HUB.items() <= took(calls, "UNet2DConditionModel.from_single_file").items()


def test_a_revision_of_the_source_goes_first(calls: dict[str, Mock]) -> None:
    model = flux(source="hub owner/name@v2")
    assembled(model, Mock(), read_options(GIVEN, None))
    assert calls["FluxPipeline.from_pretrained"].call_args.args == ("owner/name",)
    assert took(calls, "FluxPipeline.from_pretrained")["revision"] == "v2"


def test_the_hub_is_read_at_the_revision_that_is_asked_for() -> None:
    options = read_options({"revision": "v1"}, None)
    assert options.source("owner/name") == "owner/name@v1"
    for other in ("owner/name@v2", "flux.1-dev", Path("folder"), "./owner/name"):
        assert options.source(other) == other


# ---- what they mean --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_a_dtype_is_the_plan_s(name: str) -> None:
    for dtype in (torch.float16, "float16", "torch.float16"):
        assert read_options({name: dtype}, None).dtype == "float16"
    assert read_options({name: torch.float16}, "float16").dtype == "float16"
    with pytest.raises(BadInput, match="dtype is bfloat16 and float16: give one"):
        read_options({name: torch.float16}, "bfloat16")
    with pytest.raises(BadInput, match="leave it out to have each as it is stored"):
        read_options({name: {"vae": torch.float16}}, None)


@pytest.mark.parametrize("name", ["device_map", "quantization_config", "disable_mmap", "low_cpu_mem_usage"])
def test_what_the_plan_decides_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=f"{name} is for the plan to decide"):
        read_options({name: None}, None)


# ---- components ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("flux")
    build("flux", dtype=torch.bfloat16).save_pretrained(place)
    return place


def asked(**options: Any) -> dict[str, Any]:
    call = {name: value for name, value in inputs("flux").items() if name != "generator"}
    return {"target": ROOM, "device": "cpu", "cache": False, "options": options, **call}


@pytest.mark.slow
def test_a_component_in_memory_is_planned_and_used(folder: Path) -> None:
    vae, scheduler = build("flux", dtype=torch.bfloat16).vae, build("flux").scheduler
    pipe = load(folder, "model_offload", **asked(vae=vae, scheduler=scheduler))
    assert pipe.vae is vae
    assert pipe.scheduler is scheduler
    assert pipe.transformer.dtype == torch.bfloat16


def test_a_component_in_memory_takes_nothing_of_what_is_available(folder: Path) -> None:
    vae = build("flux", dtype=torch.float32).vae
    twin = with_parts(open_pipeline(folder), {"vae": vae, "scheduler": build("flux").scheduler})
    model = measure(twin.pipe, twin.name, twin.source, twin.files, twin.cast)
    assert model.component("vae").size == sum(p.numel() * 4 for p in vae.parameters())
    assert all(part.mapped for part in model.components)


def test_a_component_that_does_not_go_with_the_others_is_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"refuses this call: .* should be the same"):
        load(folder, "model_offload", **asked(vae=build("flux").vae))


def test_others_are_refused_before_anything_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.faces.load.assembled", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(BadInput, match=r"'variants' is no option of loading, and FluxPipeline takes .* vae"):
        load(folder, "model_offload", **asked(variants="fp16"))
    with pytest.raises(BadInput, match="vae is 'mine': give the component itself, loaded"):
        load(folder, "model_offload", **asked(vae="mine"))
