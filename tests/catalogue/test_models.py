"""The bundled models are found by the names that people type, and their data is whole."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.catalogue.models import BundledModel, find, is_bundled, names, nearest
from memplan.errors import BadInput

TYPED = {
    "flux": "flux.1-dev",
    "FLUX.1-dev": "flux.1-dev",
    "flux-dev": "flux.1-dev",
    "black-forest-labs/FLUX.1-dev": "flux.1-dev",
    "sdxl": "sdxl",
    "SDXL base": "sdxl",
    "sdxl_base_1.0": "sdxl",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
    "sd1.5": "sd1.5",
    "sd15": "sd1.5",
    "stable-diffusion-v1-5": "sd1.5",
    "runwayml/stable-diffusion-v1-5": "sd1.5",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd1.5",
    "wan-14b": "wan2.1-t2v-14b",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": "wan2.1-t2v-14b",
    "cogvideox-5b": "cogvideox-5b",
    "THUDM/CogVideoX-5b": "cogvideox-5b",
    "qwen_image": "qwen-image",
    "SD3.5 Large": "sd3.5-large",
    "flux2": "flux.2-dev",
    "z-image": "z-image-turbo",
    "wan2.2": "wan2.2-t2v-a14b",
    "hunyuan-video": "hunyuanvideo",
    "ltx": "ltx-video",
    "ltx2": "ltx-2",
    "Latte": "latte-1",
    "mochi": "mochi-1",
    "sana": "sana-1.6b",
}


@pytest.mark.parametrize(("typed", "name"), TYPED.items())
def test_found_by_what_people_type(typed: str, name: str) -> None:
    assert is_bundled(typed)
    assert find(typed).name == name


@pytest.mark.parametrize(
    ("typed", "meant"), [("flx.1-dev", "flux.1-dev"), ("sdlx", "sdxl"), ("cogvideo", "cogvideox-5b")]
)
def test_near_misses_are_named(typed: str, meant: str) -> None:
    with pytest.raises(BadInput, match=f"no bundled model named '{typed}'. Did you mean .*{meant}.*Bundled: "):
        find(typed)


def test_with_nothing_near_all_are_named() -> None:
    assert nearest("0") == f"Bundled: {', '.join(names())}."


@given(st.text())
def test_any_text_is_found_or_refused(text: str) -> None:
    if is_bundled(text):
        assert find(text).name in names()
    else:
        with pytest.raises(BadInput):
            find(text)


@pytest.fixture(params=names())
def model(request: pytest.FixtureRequest) -> BundledModel:
    return find(request.param)


def test_no_name_is_taken_twice() -> None:
    known = [alias.casefold() for name in names() for alias in find(name).known_as]
    assert len(known) == len(set(known))


def test_every_component_with_weights_says_how_many(model: BundledModel) -> None:
    without = ("Scheduler", "Tokenizer", "ImageProcessor")
    for key, part in model.components.items():
        if not part.class_name.endswith(without):
            figure = part if part.published_parameters or part.published_files else model
            assert bool(part.published_parameters) + bool(figure.published_files) == 1, key
            assert figure.source, key


def test_pages_and_dtypes_are_real(model: BundledModel) -> None:
    assert model.url == f"https://huggingface.co/{model.hub}"
    assert model.dtype in ("bfloat16", "float16", "float32")
    assert {part.dtype for part in model.components.values()} <= {None, "bfloat16", "float16", "float32"}


def test_a_shared_component_can_be_changed_in_part() -> None:
    flux, cogvideox = find("flux").components["tokenizer_2"], find("cogvideox-5b").components["tokenizer"]
    assert (flux.config["model_max_length"], cogvideox.config["model_max_length"]) == (512, 226)
    assert flux.config["special"] == cogvideox.config["special"]


def test_looking_up_needs_no_torch() -> None:
    code = "import sys, memplan.catalogue.models as m; m.find('flux'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
