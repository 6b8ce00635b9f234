"""A Hub id becomes the twin that from_pretrained would load, without its weights; every failure is one sentence."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from memplan.errors import BadInput, Unsupported
from memplan.faces import api
from memplan.probes.fakes.twin import modules_of
from memplan.probes.sources import identity, open_pipeline
from memplan.probes.sources.hub import hub_twin, snapshot
from tests.hub import COMMIT, Hub, serving
from tests.pipelines import build, inputs

ID = "someone/tiny"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline in float16, but for its VAE."""
    pipe = build("sd15", dtype=torch.float16)
    pipe.vae.to(torch.float32)
    pipe.save_pretrained(tmp_path_factory.mktemp("hub") / "tiny")
    return tmp_path_factory.getbasetemp() / "hub0" / "tiny"


@pytest.fixture
def hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    """A Hub of ours that huggingface_hub takes for the real one, with a cache that is empty."""
    shutil.copytree(saved, tmp_path / "tiny")
    with serving(tiny=tmp_path / "tiny") as server:
        set_constant(monkeypatch, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        set_constant(monkeypatch, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        set_constant(monkeypatch, "HF_HUB_CACHE", str(tmp_path / "cache"))
        set_constant(monkeypatch, "HF_HUB_OFFLINE", False)
        set_constant(monkeypatch, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
        monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
        yield server
    huggingface_hub.close_session()


def set_constant(monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    monkeypatch.setattr(huggingface_hub.constants, name, value)


def make(pipe: Any) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and dtype of every parameter and buffer."""
    return {
        f"{key}.{path}": (tensor.shape, tensor.dtype)
        for key, module in modules_of(pipe).items()
        for path, tensor in (*module.named_parameters(), *module.named_buffers())
    }


def test_same_as_the_folder_and_without_its_weights(hub: Hub) -> None:
    twin = hub_twin(ID)
    assert make(twin.pipe) == make(open_pipeline(hub.repositories[ID]).pipe)
    assert twin.pipe.unet.dtype == torch.float16
    assert (twin.name, twin.source) == (ID, f"hub {ID}")
    assert not any("safetensors" in path and "/resolve/" in path for path in hub.sent)


def test_weights_are_read_by_their_headers_only(hub: Hub) -> None:
    file = hub.repositories[ID] / WEIGHTS
    file.write_bytes(file.read_bytes()[:0])
    entry = {"x": {"dtype": "BF16", "shape": [1 << 22], "data_offsets": [0, 1 << 23]}}
    header = json.dumps(entry).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(1 << 23))
    assert hub_twin(ID).pipe.unet.dtype == torch.bfloat16
    assert hub.sent[f"/store/{ID}/{WEIGHTS}"] <= 1 << 17


def test_a_long_header_is_read_in_two_parts(hub: Hub) -> None:
    file = hub.repositories[ID] / WEIGHTS
    header = json.dumps(
        {f"{'x' * 100}{n}": {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]} for n in range(1500)}
    )
    header = header[:-1] + ', "y": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))
    assert hub_twin(ID).pipe.unet.dtype == torch.float32


def test_a_server_that_ignores_ranges_is_left(hub: Hub) -> None:
    hub.faults["/store/"] = "all"
    assert make(hub_twin(ID).pipe) == make(open_pipeline(hub.repositories[ID]).pipe)


def test_the_token_is_shown(hub: Hub) -> None:
    snapshot(ID)
    assert {token for path, token in hub.tokens.items() if ID in path} == {"Bearer hf_of_the_tests"}


@pytest.mark.parametrize("source", [ID, f"{ID}@main", f"{ID}@{COMMIT}"])
def test_revisions(hub: Hub, source: str) -> None:
    assert snapshot(source).commit == COMMIT
    assert identity(source) == COMMIT


def test_given_a_dtype_no_weight_file_is_asked_for(hub: Hub) -> None:
    assert hub_twin(ID, "bfloat16").pipe.unet.dtype == torch.bfloat16
    assert not any("safetensors" in path for _, path in hub.asked)


def test_a_component_without_safetensors_is_told(hub: Hub) -> None:
    (hub.repositories[ID] / WEIGHTS).unlink()
    twin = hub_twin(ID)
    assert twin.assumptions == ("no safetensors file tells in which dtype unet is loaded: bfloat16 is assumed",)


def test_a_bundled_model_s_own_id_asks_nobody(hub: Hub) -> None:
    assert open_pipeline("stable-diffusion-v1-5/stable-diffusion-v1-5").source == "bundled sd1.5"
    assert hub.asked == []


# ---- out of reach ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["offline", "hang", 500, "nonsense", "cut"])
def test_what_the_cache_holds_does_without_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch, how: str | int) -> None:
    whole = make(hub_twin(ID, "float16").pipe)
    set_constant(monkeypatch, "HF_HUB_OFFLINE", how == "offline")
    hub.faults["/"] = how
    assert identity(ID) == COMMIT
    assert make(hub_twin(ID, "float16").pipe) == whole


def test_the_dtype_of_weights_is_not_made_up(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_twin(ID)
    set_constant(monkeypatch, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match=r"what dtype \w+ is stored in is not known offline: give one, e\.g\. --dtype"):
        hub_twin(ID)


FAULTS: dict[str, tuple[str, str | int, str]] = {
    "a gated repository": (
        "/resolve/",
        "gated",
        r"is gated: accept its terms at http\S+/someone/tiny, run `hf auth login`",
    ),
    "gated headers": ("/unet/", "gated", r"is gated: accept its terms"),
    "a private repository": (
        "/",
        "private",
        r"shows no model someone/tiny: check the spelling, or run `hf auth login`",
    ),
    "forbidden": ("/", 403, r"the Hub refuses someone/tiny: see whether http\S+ opens"),
    "a server in trouble": ("/", 500, r"cannot be read from http\S+ and is not in the Hub's cache here \(HTTP 500\)"),
    "in trouble later": ("safetensors", 500, r"\(HTTP 500\)"),
    "nonsense": ("/api/", "nonsense", r"cannot be read from http"),
    "half an answer": ("/api/", "cut", r"cannot be read from http"),
    "half a header": ("/store/", "cut", r"cannot be read from http"),
}


@pytest.mark.parametrize(("path", "fault", "words"), FAULTS.values(), ids=FAULTS)
def test_refusals(hub: Hub, path: str, fault: str | int, words: str) -> None:
    hub.faults[path] = fault
    with pytest.raises(BadInput, match=words) as error:
        hub_twin(ID)
    assert "\n" not in str(error.value)


def test_a_hub_that_hangs_is_left_in_time(hub: Hub) -> None:
    hub.faults["/"] = "hang"
    began = time.monotonic()
    with pytest.raises(BadInput, match="cannot be read from"):
        hub_twin(ID)
    assert time.monotonic() - began < 10


def test_a_hub_that_drips_is_left_in_time(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.probes.sources.hub.PATIENCE", 3)
    hub.faults["/api/"] = "drip"
    began = time.monotonic()
    with pytest.raises(BadInput, match=r"nothing was finished for 3 seconds"):
        hub_twin(ID)
    assert time.monotonic() - began < 10


def test_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    set_constant(monkeypatch, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BadInput, match=r"cannot be read from http://127\.0\.0\.1:9 and is not in the Hub's cache"):
        hub_twin(ID)


def test_offline_and_unknown(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    set_constant(monkeypatch, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match=r"\(HF_HUB_OFFLINE is set\): try again when it can be reached"):
        identity(ID)


def test_names_that_mean_nothing(hub: Hub) -> None:
    with pytest.raises(BadInput, match=r"shows no model someone/FLUX\.1-dev.*Did you mean flux\.1-dev"):
        open_pipeline("someone/FLUX.1-dev")
    with pytest.raises(BadInput, match="has no revision 'v9'"):
        open_pipeline(f"{ID}@v9")
    with pytest.raises(BadInput, match="a--b/c is no Hub id"):
        open_pipeline("a--b/c")


def test_no_pipeline(hub: Hub) -> None:
    (hub.repositories[ID] / "model_index.json").unlink()
    with pytest.raises(Unsupported, match=r"someone/tiny has no model_index\.json, so it is not a diffusers pipeline"):
        hub_twin(ID)


def test_a_lying_weight_file(hub: Hub) -> None:
    (hub.repositories[ID] / WEIGHTS).write_bytes(b"\xff" * 100)
    with pytest.raises(BadInput, match=r"diffusion_pytorch_model\.safetensors is not a whole safetensors file"):
        hub_twin(ID)


def test_a_config_that_is_none(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.probes.sources.hub.LARGEST_SMALL", 100)
    with pytest.raises(BadInput, match=r"has \d+ bytes, which no config or vocabulary has"):
        hub_twin(ID)


# ---- from end to end ------------------------------------------------------------------------------------------------
def test_facts_are_kept_by_commit(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path / "facts"))
    target = api.Target(vram=8, ram=16)
    call = {key: value for key, value in inputs("sd15").items() if key != "generator"}
    first = api.facts(ID, call, target=target, dtype="float32")
    del hub.asked[:]
    assert api.facts(ID, call, target=target, dtype="float32").trace.timeline == first.trace.timeline
    assert [path for _, path in hub.asked if ID in path] == [f"/api/models/{ID}/revision/main"]
    hub.faults["/"] = 500
    assert api.facts(ID, call, target=target, dtype="float32").trace.timeline == first.trace.timeline
    hub.faults.clear()
    hub.commit = COMMIT[::-1]
    del hub.asked[:]
    api.facts(ID, call, target=target, dtype="float32")
    assert len(hub.asked) > 2


@pytest.mark.slow
@pytest.mark.wide
def test_the_environment_is_huggingface_hub_s(hub: Hub, tmp_path: Path) -> None:
    own = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "HF_TOKEN": "hf_x",
    }
    unset = ("HF_HUB_OFFLINE", "HF_HUB_CACHE")
    environment = {**{key: value for key, value in os.environ.items() if key not in unset}, **own}

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "memplan", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    probed = typed("probe", ID)
    assert probed.returncode == 0
    assert f"{ID}, StableDiffusionPipeline" in probed.stdout
    assert {token for path, token in hub.tokens.items() if ID in path} == {"Bearer hf_x"}
    hub.faults["/"] = "gated"
    refused = typed("probe", "someone/else")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("memplan: someone/else is gated: accept its terms")
