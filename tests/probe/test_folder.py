"""A saved pipeline becomes the twin that from_pretrained would load, with its weights or without."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from memplan.errors import BadInput, Unsupported
from memplan.probe.folder import folder_twin
from memplan.probe.trace import dry_run
from memplan.probe.twin import modules_of
from tests.pipelines import FAMILIES, build, inputs


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


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_same_as_from_pretrained(tmp_path: Path, family: str, dtype: str) -> None:
    build(family).save_pretrained(tmp_path)
    loaded = type(build(family)).from_pretrained(tmp_path, torch_dtype=getattr(torch, dtype))
    assert make(folder_twin(tmp_path, dtype).pipe) == make(loaded)


@pytest.mark.parametrize("family", FAMILIES)
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


# ---- what is refused ------------------------------------------------------------------------------------------------
def refused(folder: Path, *words: str) -> None:
    with pytest.raises(BadInput) as error:
        folder_twin(folder)
    for word in words:
        assert word in str(error.value)


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", f"there is no folder {tmp_path / 'nowhere'}")


def test_a_file(flux: Path) -> None:
    refused(flux / "model_index.json", "is a file; give the folder")


def test_no_index(tmp_path: Path) -> None:
    refused(tmp_path, "has no model_index.json", "save_pretrained")


@pytest.mark.parametrize("text", ["{", "", "\x00", '{"a": }'])
def test_index_that_is_no_json(flux: Path, text: str) -> None:
    (flux / "model_index.json").write_text(text)
    refused(flux, "model_index.json is not valid JSON", "again")


def test_index_that_is_no_table(flux: Path) -> None:
    (flux / "model_index.json").write_text("[]")
    refused(flux, "holds a list instead of a table")


def test_unknown_pipeline(flux: Path) -> None:
    edit(flux / "model_index.json", _class_name="FlixPipeline")
    refused(flux, "diffusers has no class FlixPipeline here")


@pytest.mark.parametrize("name", [None, 3])
def test_nameless_pipeline(flux: Path, name: Any) -> None:
    edit(flux / "model_index.json", _class_name=name)
    refused(flux, f"does not say which pipeline it is: _class_name is {name}")


def test_pipeline_of_its_own_code(flux: Path) -> None:
    edit(flux / "model_index.json", _class_name=["pipeline", "MyPipeline"])
    with pytest.raises(Unsupported, match=r"its own code \(MyPipeline\)"):
        folder_twin(flux)


def test_no_component_folder(flux: Path) -> None:
    (flux / "vae").rename(flux / "elsewhere")
    refused(flux, "has no folder vae", "model_index.json")


def test_no_config(flux: Path) -> None:
    (flux / "vae" / "config.json").unlink()
    refused(flux, str(flux / "vae" / "config.json"), "is missing; only the weights may be")


def test_no_scheduler_config(flux: Path) -> None:
    (flux / "scheduler" / "scheduler_config.json").unlink()
    refused(flux, str(flux / "scheduler"), "does not make a FlowMatchEulerDiscreteScheduler")


def test_unknown_component_class(flux: Path) -> None:
    edit(flux / "model_index.json", vae=["diffusers", "AutoencoderXL"])
    refused(flux, "diffusers has no class AutoencoderXL here")


def test_unknown_library(flux: Path) -> None:
    edit(flux / "model_index.json", vae=["somewhere", "AutoencoderKL"])
    refused(flux, "somewhere has no class AutoencoderKL here")


WRONG = [
    ("transformer", {"num_layers": "two"}),
    ("transformer", {"attention_head_dim": -1}),
    ("transformer", {"joint_attention_dim": None}),
    ("vae", {"block_out_channels": "many"}),
    ("vae", {"down_block_types": ["NoSuchBlock"]}),
    ("text_encoder", {"hidden_size": "wide"}),
    ("text_encoder_2", {"num_layers": 1.5}),
]


@pytest.mark.parametrize(("key", "change"), WRONG, ids=str)
def test_config_of_the_wrong_kind(flux: Path, key: str, change: dict[str, Any]) -> None:
    edit(flux / key / "config.json", **change)
    refused(flux, str(flux / key / "config.json"), "does not make a")


def test_quantized_weights(flux: Path) -> None:
    edit(flux / "transformer" / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(Unsupported, match=r"transformer: its weights are quantized \(bitsandbytes\)"):
        folder_twin(flux)


def test_damaged_weights(flux: Path) -> None:
    file = flux / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    refused(flux, str(file), "the file is cut short", "Download it again")


def test_needed_component_left_out(flux: Path) -> None:
    index = json.loads((flux / "model_index.json").read_text())
    (flux / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if k != "vae"}))
    refused(flux, "tiny-flux has no vae, which FluxPipeline needs")
