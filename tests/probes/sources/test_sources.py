"""One door: what a source means, and what is said of one that means nothing."""

from pathlib import Path
from typing import Any

import pytest

from memplan.errors import BadInput, Unsupported
from memplan.probes.fakes.fake import fresh_mode
from memplan.probes.fakes.twin import Twin
from memplan.probes.sources import open_pipeline
from tests.pipelines import build


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved pipeline, in the directory that the tests run in."""
    build("sd15").save_pretrained(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "mine"


@pytest.mark.parametrize("source", ["mine", "./mine", "mine/", "~/mine", Path("mine")], ids=str)
def test_a_path(folder: Path, source: str | Path) -> None:
    twin = open_pipeline(source)
    assert twin.name == "mine"
    assert twin.source.startswith("folder ")


def test_a_whole_path(folder: Path) -> None:
    assert open_pipeline(str(folder)).source == f"folder {folder}"


def test_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert open_pipeline(".").name == "mine"


def test_a_name() -> None:
    assert open_pipeline("sd15").source == "bundled sd1.5"


def test_a_pipeline() -> None:
    assert open_pipeline(build("sd15")).source == "live StableDiffusionPipeline"


def test_a_saved_pipeline_goes_before_a_bundled_name(folder: Path) -> None:
    folder.rename(folder.parent / "flux")
    assert open_pipeline("flux").source == "folder flux"


def test_any_other_folder_does_not(folder: Path) -> None:
    (folder.parent / "sd15").mkdir()
    assert open_pipeline("sd15").source == "bundled sd1.5"


@pytest.mark.parametrize("source", ["./nowhere", "/no/where", "~/nowhere"])
def test_a_path_that_leads_nowhere(folder: Path, source: str) -> None:
    with pytest.raises(BadInput, match=r"there is no folder .*where"):
        open_pipeline(source)


def test_a_folder_that_holds_no_pipeline(folder: Path) -> None:
    (folder.parent / "empty").mkdir()
    with pytest.raises(BadInput, match=r"empty has no model_index\.json"):
        open_pipeline("empty")


def test_an_unknown_name() -> None:
    with pytest.raises(BadInput, match=r"no bundled model named 'flx'. Did you mean flux\.1-dev or flux\.2-dev\?"):
        open_pipeline("flx")


def test_a_bundled_model_has_no_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Twin(None, fresh_mode(), "sdxl", "bundled sdxl")
    monkeypatch.setattr("memplan.probes.sources.bundled.bundled_twin", lambda *_: built)
    with pytest.raises(
        BadInput, match=r"no variant 'fp99' to choose.* or give the id .* stabilityai/stable-diffusion-xl"
    ):
        open_pipeline("sdxl", variant="fp99")
    twin = open_pipeline("stabilityai/stable-diffusion-xl-base-1.0", variant="fp16")
    assert twin.variant == "fp16"
    assert "has files of the variant fp16 is not looked up" in twin.assumptions[0]
    assert open_pipeline("sdxl").assumptions == ()


@pytest.mark.parametrize("source", [None, 3, b"flux", object, ["flux"]], ids=str)
def test_anything_else(source: Any) -> None:
    with pytest.raises(BadInput, match=f"cannot open a {type(source).__name__}: give a pipeline of diffusers"):
        open_pipeline(source)


@pytest.mark.parametrize("source", ["x" * 10_000, "\0", "a\nb"], ids=repr)
def test_texts_that_are_neither(source: str) -> None:
    with pytest.raises(BadInput, match="no bundled model named"):
        open_pipeline(source)


def test_a_dtype_for_a_pipeline_in_memory() -> None:
    with pytest.raises(BadInput, match="'float16' means nothing for a pipeline in memory"):
        open_pipeline(build("sd15"), dtype="float16")


def test_a_dtype_goes_on(folder: Path) -> None:
    import torch

    assert open_pipeline(folder, dtype="float16").pipe.unet.dtype == torch.float16


def test_a_file_beside_a_source(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no file x.gguf for unet"):
        open_pipeline("mine,unet=x.gguf")
    with pytest.raises(BadInput, match="no bundled model named 'flx'"):
        open_pipeline("flx,transformer=x.gguf")


def test_a_file_with_such_a_name(folder: Path) -> None:
    named = folder.parent / "flux,transformer=x.gguf"
    named.write_bytes(b"GGUF")
    with pytest.raises(BadInput, match=r"flux,transformer=x\.gguf is not a whole GGUF file"):
        open_pipeline(str(named))


def test_a_saved_modular_pipeline(tmp_path: Path) -> None:
    (tmp_path / "modular_model_index.json").write_text("{}")
    with pytest.raises(Unsupported, match="is a ModularPipeline, which is planned in memory only"):
        open_pipeline(tmp_path)
