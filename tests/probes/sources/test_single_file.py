"""A checkpoint of one file is known by its header, and what it does not hold is said."""

import json
import re
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils

from memplan.catalogue.models import find
from memplan.errors import BadInput, Unsupported
from memplan.probes.sources import identity, open_pipeline
from memplan.probes.sources.bundled import bundled_twin
from memplan.probes.sources.single_file import file_twin
from tests.probes.gguf_files import write

Shapes = dict[str, tuple[int, ...]]
ITEM = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}


def written(path: Path, groups: Mapping[str, Shapes]) -> Path:
    """A file that holds tensors of those shapes by dtype, without taking the room on the disk."""
    header: dict[str, Any] = {}
    end = 0
    for code, shapes in groups.items():
        for name, shape in shapes.items():
            start, end = end, end + prod(shape) * ITEM[code]
            header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def known_by(family: str) -> str:
    """The tensor by which diffusers knows a family."""
    return str(single_file_utils.CHECKPOINT_KEY_NAMES[family])


def flux_transformer(prefix: str = "") -> Shapes:
    """The tensors of FLUX.1-dev's transformer as its publisher names and joins them: as many elements as diffusers'."""
    marks: Shapes = {"double_blocks.0.img_attn.norm.key_norm.scale": (128,), "guidance_in.in_layer.bias": (3072,)}
    rest = (find("flux.1-dev").components["transformer"].published_parameters or 0) - 128 - 3072
    image = {"img_in.weight": (3072, 64)}
    return {prefix + k: v for k, v in {**marks, **image, "rest": (rest - 3072 * 64,)}.items()}


@pytest.mark.slow
def test_a_transformer_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "flux-mine.safetensors", {"F16": flux_transformer()})
    twin = file_twin(path)
    assert type(twin.pipe).__name__ == "FluxPipeline"
    assert (twin.pipe.transformer.dtype, twin.pipe.vae.dtype) == (torch.float16, torch.bfloat16)
    said = "flux-mine.safetensors holds no vae, text_encoder, text_encoder_2: taken from black-forest-labs/FLUX.1-dev"
    assert twin.assumptions == (said,)
    assert (twin.name, twin.source) == ("flux-mine.safetensors", "bundled flux.1-dev")
    assert twin.files == {"transformer": str(path)}
    assert not twin.cast


@pytest.mark.slow
def test_comfyui_s_whole_pipeline_in_8_bits(tmp_path: Path) -> None:
    rest: Shapes = {"vae.decoder.x": (9,), "text_encoders.clip_l.x": (9,), "text_encoders.t5xxl.x": (9,)}
    groups: dict[str, Shapes] = {"F8_E4M3": flux_transformer("model.diffusion_model."), "F16": rest}
    twin = file_twin(written(tmp_path / "all.safetensors", groups))
    assert twin.assumptions == ("all.safetensors stores transformer as float8_e4m3fn: loaded in bfloat16",)
    assert set(twin.files) == {"transformer", "vae", "text_encoder", "text_encoder_2"}
    assert twin.cast == {"transformer"}
    dtypes = {key: module.dtype for key, module in twin.components().items()}
    assert dtypes.pop("transformer") == torch.bfloat16
    assert set(dtypes.values()) == {torch.float16}


@pytest.mark.slow
def test_a_dtype_goes_before_the_file_s(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors", {"F16": flux_transformer()})
    twin = open_pipeline(path, "float32")
    assert twin.pipe.transformer.dtype == torch.float32
    assert twin.cast == {"transformer"}


@pytest.mark.slow
def test_stable_diffusion_as_published(tmp_path: Path) -> None:
    unet = bundled_twin("sd1.5").pipe.unet
    elements = sum(t.numel() for t in unet.state_dict().values())
    shapes: Shapes = {known_by("v1"): (320, 960, 1, 1), known_by("inpainting"): (320, 4, 3, 3)}
    shapes["model.diffusion_model.rest"] = (elements - sum(map(prod, shapes.values())),)
    shapes |= {known_by("clip"): (77, 768), "first_stage_model.x": (9,), "model_ema.x": (10**9,)}
    twin = open_pipeline(str(written(tmp_path / "sd.safetensors", {"F32": shapes})))
    assert {module.dtype for module in twin.components().values()} == {torch.float32}
    assert (twin.pipe.safety_checker, twin.assumptions) == (None, ())


@pytest.mark.slow
def test_a_unet_alone_has_the_rest_of_its_pipeline(tmp_path: Path) -> None:
    elements = sum(t.numel() for t in bundled_twin("sd1.5").pipe.unet.state_dict().values())
    shapes: Shapes = {known_by("v1"): (320, 960, 1, 1), known_by("inpainting"): (320, 4, 3, 3)}
    shapes["model.diffusion_model.rest"] = (elements - sum(map(prod, shapes.values())),)
    twin = open_pipeline(written(tmp_path / "unet.safetensors", {"F32": shapes}))
    assert (twin.pipe.unet.dtype, twin.pipe.vae.dtype) == (torch.float32, torch.float16)
    assert twin.pipe.safety_checker is not None
    assert set(twin.files) == {"unet"}


@pytest.mark.slow
def test_a_gguf_file_alone(tmp_path: Path) -> None:
    tensors = {k: ("F32", shape) for k, shape in flux_transformer().items() if k != "rest"}
    with pytest.raises(BadInput, match=r"diffusers makes no FluxTransformer2DModel of the tensors in .*x\.gguf"):
        open_pipeline(write(tmp_path / "x.gguf", tensors))


def change(edit: Callable[[Shapes], Shapes], words: str) -> Any:
    return pytest.param(edit, words, id=words[:30])


REFUSED = [
    change(lambda s: {**s, "more": (1,)}, r"is like flux\.1-dev, but its transformer has 11,90\d,\d+,\d+ elements"),
    change(lambda s: {"a.lora_A.weight": (4, 4)}, "diffusers knows no model by the tensors of"),
    change(lambda s: {known_by("inpainting"): (1,)}, "diffusers knows no model by the"),
    change(lambda s: {}, "diffusers knows no model by the tensors of"),
    change(lambda s: {**s, "img_in.weight": (3072, 384)}, r"is a flux-fill, which is not bundled"),
]


@pytest.mark.parametrize(("edit", "words"), REFUSED)
def test_what_is_not_bundled(tmp_path: Path, edit: Callable[[Shapes], Shapes], words: str) -> None:
    path = written(tmp_path / "x.safetensors", {"BF16": edit(flux_transformer())})
    with pytest.raises(BadInput, match=words):
        file_twin(path)


@pytest.mark.parametrize("name", ["model.ckpt", "notes"])
def test_other_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(100))
    with pytest.raises(Unsupported, match=re.escape(f"{name} is no safetensors or GGUF file: convert it")):
        open_pipeline(tmp_path / name)


def test_two_states_of_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors", {"F16": {"a": (1,)}})
    before = identity(path)
    written(path, {"F16": {"a": (2,)}})
    assert identity(path) != before
