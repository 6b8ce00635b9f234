"""A saved pipeline becomes the twin that from_pretrained would load, with its weights or without."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from memplan.probes.fakes.twin import modules_of
from memplan.probes.sources import open_pipeline
from memplan.probes.sources.folder import folder_twin
from memplan.probes.trace import dry_run
from tests.pipelines import FAMILIES, build, inputs
from tests.some import some


def make(pipe: Any) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and dtype of every parameter and buffer."""
    return {
        f"{key}.{path}": (tensor.shape, tensor.dtype)
        for key, module in modules_of(pipe).items()
        for path, tensor in (*module.named_parameters(), *module.named_buffers())
    }


@pytest.fixture
def flux(tmp_path: Path) -> Path:
    """A folder of configs and float32 weights."""
    build("flux").save_pretrained(tmp_path / "tiny-flux")
    return tmp_path / "tiny-flux"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", some(FAMILIES, "flux", "sd15", "wan22"))
def test_same_as_from_pretrained(tmp_path: Path, family: str, dtype: str) -> None:
    build(family).save_pretrained(tmp_path)
    loaded = type(build(family)).from_pretrained(tmp_path, torch_dtype=getattr(torch, dtype))
    assert make(folder_twin(tmp_path, dtype).pipe) == make(loaded)


@pytest.mark.parametrize("family", some(FAMILIES, "sd3"))
def test_the_call_runs(tmp_path: Path, family: str) -> None:
    build(family).save_pretrained(tmp_path)
    assert len(dry_run(folder_twin(tmp_path), inputs(family)).calls) > 1


def test_what_it_says_of_itself(flux: Path) -> None:
    twin = folder_twin(flux)
    assert (twin.name, twin.source) == ("tiny-flux", f"folder {flux}")
    assert type(twin.pipe.tokenizer).__name__ == type(build("flux").tokenizer).__name__


def test_the_hub_s_cache_is_called_by_its_id(flux: Path) -> None:
    snapshot = flux.parent / "models--someone--a-model" / "snapshots" / "0123abc"
    snapshot.parent.mkdir(parents=True)
    flux.rename(snapshot)
    assert folder_twin(snapshot).name == "someone/a-model"


# ---- the dtype ------------------------------------------------------------------------------------------------------
def test_the_stored_dtype(tmp_path: Path) -> None:
    pipe = build("flux", dtype=torch.float16)
    pipe.vae.to(torch.float32)
    pipe.save_pretrained(tmp_path)
    components = folder_twin(tmp_path).components()
    assert {key: module.dtype for key, module in components.items()} == {
        "vae": torch.float32,
        "text_encoder": torch.float16,
        "text_encoder_2": torch.float16,
        "transformer": torch.float16,
    }


def test_a_variant_counts_only_by_itself(flux: Path) -> None:
    weights = flux / "vae" / "diffusion_pytorch_model.safetensors"
    build("flux", dtype=torch.float16).vae.save_pretrained(flux / "vae", variant="fp16")
    assert folder_twin(flux).pipe.vae.dtype == torch.float32
    weights.unlink()
    assert folder_twin(flux).pipe.vae.dtype == torch.float16


@pytest.mark.parametrize("shards", ["10GB", "100KB"])
def test_a_variant_that_is_asked_for_counts_where_it_is(flux: Path, shards: str) -> None:
    part = build("flux", dtype=torch.float16).transformer
    part.save_pretrained(flux / "transformer", variant="fp16", max_shard_size=shards)
    twin = open_pipeline(flux, variant="fp16")
    assert (twin.pipe.transformer.dtype, twin.pipe.vae.dtype) == (torch.float16, torch.float32)
    assert (twin.variant, twin.cast) == ("fp16", frozenset())
    assert open_pipeline(flux).pipe.transformer.dtype == torch.float32


def test_shards_are_all_read(flux: Path) -> None:
    (flux / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    build("flux", dtype=torch.float16).transformer.save_pretrained(flux / "transformer", max_shard_size="100KB")
    assert len(list((flux / "transformer").glob("*-of-*.safetensors"))) > 1
    assert folder_twin(flux).pipe.transformer.dtype == torch.float16


@pytest.mark.parametrize("left", ["nothing", "pointers"])
def test_without_weights_bfloat16(flux: Path, left: str) -> None:
    for file in flux.rglob("*.safetensors"):
        if left == "nothing":
            file.unlink()
        else:
            file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert {module.dtype for module in folder_twin(flux).components().values()} == {torch.bfloat16}


def test_a_dtype_that_no_file_tells_is_an_assumption(flux: Path) -> None:
    build("flux").vae.save_pretrained(flux / "vae", safe_serialization=False)
    assert folder_twin(flux).assumptions == ()
    (flux / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    twin = folder_twin(flux)
    assert twin.pipe.vae.dtype == torch.bfloat16
    assert twin.assumptions == ("no safetensors file tells in which dtype vae is loaded: bfloat16 is assumed",)
    assert folder_twin(flux, "float16").assumptions == ()


# ---- components that are not there ----------------------------------------------------------------------------------
def test_null_is_none(tmp_path: Path) -> None:
    build("sd15").save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["safety_checker"] == [None, None]
    assert folder_twin(tmp_path).pipe.safety_checker is None


def test_optional_and_left_out_is_none(flux: Path) -> None:
    index = json.loads((flux / "model_index.json").read_text())
    (flux / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if k != "image_encoder"}))
    assert folder_twin(flux).pipe.image_encoder is None
