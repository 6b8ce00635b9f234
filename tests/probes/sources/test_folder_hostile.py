"""Folders that somebody made to take the machine's memory or the day are refused in words, and in seconds."""

import json
import os
import shutil
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from memplan.errors import BadInput
from memplan.probes.sources import identity
from memplan.probes.sources.folder import folder_twin
from memplan.probes.sources.jsons import config_table, json_table
from tests.pipelines import build

SECONDS = 30
BYTES = 1 << 30


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of configs without weights, which nobody changes."""
    folder = tmp_path_factory.mktemp("hostile") / "tiny-flux"
    build("flux").save_pretrained(folder)
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    return folder


@pytest.fixture
def flux(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(saved, tmp_path / "tiny-flux")
    return tmp_path / "tiny-flux"


@pytest.fixture(autouse=True)
def in_bounds() -> Generator[None]:
    """No test takes long, or memory that it does not give back."""
    process, began = psutil.Process(), time.monotonic()
    before = process.memory_info().rss
    yield
    assert time.monotonic() - began < SECONDS
    assert process.memory_info().rss - before < BYTES


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


NUMBERS = [
    ("transformer/config.json", {"num_layers": 10**9}, "no model has num_layers = 1000000000"),
    ("transformer/config.json", {"attention_head_dim": 10**30}, "no model has attention_head_dim = 1000"),
    ("transformer/config.json", {"axes_dims_rope": [16, [10**9], 56]}, "no model has axes_dims_rope"),
    ("vae/config.json", {"layers_per_block": 10**7}, "no model has layers_per_block"),
    ("vae/config.json", {"block_out_channels": [10**8]}, "no model has block_out_channels"),
    ("text_encoder/config.json", {"num_hidden_layers": 10**9}, "no model has num_hidden_layers"),
    ("text_encoder/config.json", {"max_position_embeddings": 10**10}, "no model has max_position_embeddings"),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**11}, "no model has num_train_timesteps"),
]


@pytest.mark.parametrize(("file", "change", "words"), NUMBERS, ids=lambda value: str(value)[:60])
def test_numbers_without_measure(flux: Path, file: str, change: dict[str, Any], words: str) -> None:
    edit(flux / file, **change)
    with pytest.raises(BadInput) as error:
        folder_twin(flux)
    assert words in str(error.value)
    assert str(flux) in str(error.value)


def test_more_layers_than_anybody_trains(flux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.probes.sources.bounds.MOST_MODULES", 3_000)
    edit(flux / "transformer" / "config.json", num_layers=99_999)
    with pytest.raises(BadInput, match="transformer: its config asks for more than 3000 modules"):
        folder_twin(flux)


def test_a_table_of_more_positions_than_memory(flux: Path) -> None:
    edit(flux / "text_encoder" / "config.json", max_position_embeddings=10**8)
    with pytest.raises(BadInput, match="its config asks for a constant of 800000000 bytes"):
        folder_twin(flux)


@pytest.mark.parametrize("file", ["model_index.json", "vae/config.json"])
def test_nested_without_end(flux: Path, file: str) -> None:
    (flux / file).write_text('{"a":' * 200_000)
    with pytest.raises(BadInput, match=f"{file} is nested too deeply"):
        folder_twin(flux)


@pytest.mark.parametrize("file", ["model_index.json", "vae/config.json"])
def test_longer_than_any_config(flux: Path, file: str) -> None:
    os.truncate(flux / file, 1 << 34)
    with pytest.raises(BadInput, match=f"{file} has {1 << 34} bytes, far too many"):
        folder_twin(flux)


@pytest.mark.parametrize("file", ["model_index.json", "vae/config.json"])
@pytest.mark.parametrize("kind", ["folder", "loop", "pipe"])
def test_what_is_no_file(flux: Path, file: str, kind: str) -> None:
    (flux / file).unlink()
    if kind == "folder":
        (flux / file).mkdir()
    elif kind == "loop":
        (flux / file).symlink_to(flux / file)
    else:
        os.mkfifo(flux / file)
    with pytest.raises(BadInput, match=r"is missing|has no model_index\.json"):
        folder_twin(flux)


def test_a_folder_where_weights_should_be(flux: Path) -> None:
    (flux / "vae" / "diffusion_pytorch_model.safetensors").mkdir()
    with pytest.raises(BadInput, match="should hold weights, but it is no file"):
        folder_twin(flux)


def test_a_component_that_leads_back_to_the_pipeline(flux: Path) -> None:
    shutil.rmtree(flux / "vae")
    (flux / "vae").symlink_to(flux)
    with pytest.raises(BadInput, match=r"vae/config\.json is missing"):
        folder_twin(flux)
    assert len(identity(flux)) < 100


def test_a_folder_that_leads_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(BadInput, match="there is no folder"):
        folder_twin(tmp_path / "loop")


def test_only_a_pipeline_s_own_files_tell_it_apart(flux: Path) -> None:
    deep = flux / "vae" / "cache" / "deeper"
    deep.mkdir(parents=True)
    before = identity(flux)
    (deep / "file").touch()
    assert identity(flux) == before


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(value=ANYTHING)
def test_any_json_is_a_table_or_refused(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("json") / "config.json"
    path.write_text(json.dumps(value))
    if isinstance(value, dict):
        assert json_table(path) == value
        with suppress(BadInput):
            assert config_table(path) == value
    else:
        with pytest.raises(BadInput, match="instead of a table"):
            json_table(path)


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    change=st.dictionaries(
        st.sampled_from(["num_layers", "num_single_layers", "attention_head_dim", "axes_dims_rope", "in_channels"]),
        ANYTHING | st.sampled_from([0, -1, 10**6, 10**12, [10**6] * 3]),
        min_size=1,
    )
)
@example(change={"num_layers": 0, "quantization_config": 3})
def test_any_config_makes_a_model_or_is_refused(saved: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    folder = tmp_path / "any"
    if not folder.exists():
        shutil.copytree(saved, folder)
    config = json.loads((saved / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, **change}))
    with suppress(BadInput):
        folder_twin(folder)
