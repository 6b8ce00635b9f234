"""A folder that is no whole pipeline is refused with the file's name, what is wrong with it, and what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from memplan.errors import BadInput, Unsupported
from memplan.probes.sources.folder import folder_twin
from tests.pipelines import build


@pytest.fixture
def flux(tmp_path: Path) -> Path:
    """A folder of configs and float32 weights."""
    build("flux").save_pretrained(tmp_path / "tiny-flux")
    return tmp_path / "tiny-flux"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


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
