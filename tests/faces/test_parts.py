"""One rule says in which dtypes components are loaded, for pipelines that are loaded and for scripts that load them."""

from unittest.mock import Mock

import diffusers
import pytest
import torch

from memplan.faces.assembled import assembled
from memplan.faces.parts import dtypes, encoders, together
from memplan.faces.report.loading import loading
from memplan.facts import Component, Model, Weight


def part(name: str, cls: str, dtype: str, numel: int = 8, *, file: str = "", library: str = "diffusers") -> Component:
    return Component(name, cls, library, dtype, (Weight("w", numel, dtype),), file=file)


def test_the_dtype_of_most_bytes_is_that_of_the_others() -> None:
    parts = [part("a", "A", "float32", 10), part("b", "B", "float16", 15), part("c", "C", "float16", 6)]
    assert dtypes(parts) == {"a": "float32", "default": "float16"}
    assert dtypes(parts[:2]) == {"b": "float16", "default": "float32"}
    assert dtypes(parts[1:]) == {"default": "float16"}


def test_what_is_loaded_at_once_loses_nothing() -> None:
    texts = [part(name, "T", "float16", file="f", library="transformers") for name in "ab"]
    assert together(texts) == "float16"
    assert together([texts[0], part("c", "T", "bfloat16")]) == "float32"
    assert encoders([*texts, part("vae", "V", "float16", file="f"), part("d", "T", "float16")]) == texts


@pytest.mark.parametrize("second", ["float16", "bfloat16"])
def test_a_script_and_a_load_ask_for_the_same(second: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the pipeline's own from_single_file(), whose text encoders have one dtype or two."""
    kinds = {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"}
    texts = [part(name, kind, "float16", file="f", library="transformers") for name, kind in kinds.items()]
    texts[1] = part("text_encoder_2", kinds["text_encoder_2"], second, file="f", library="transformers")
    rest = [part("unet", "UNet2DConditionModel", "float16", file="f"), part("vae", "AutoencoderKL", "float32")]
    model = Model("sdxl", "StableDiffusionXLPipeline", (*texts, *rest), source="folder there")
    made: list[dict[str, torch.dtype]] = []
    for load in (lambda: assembled(model, Mock()), lambda: run(model)):
        double = Mock()
        with monkeypatch.context() as patch:
            patch.setattr(diffusers.StableDiffusionXLPipeline, "from_single_file", double)
            patch.setattr(diffusers.UNet2DConditionModel, "from_single_file", Mock())
            patch.setattr(diffusers.AutoencoderKL, "from_pretrained", Mock())
            load()
        casts = {name: getattr(double.return_value, name).to.call_args for name in kinds}
        final = {name: given.args[0] if given else double.call_args.kwargs["dtype"] for name, given in casts.items()}
        made.append({"together": double.call_args.kwargs["dtype"], **final})
    expected = {"text_encoder": torch.float16, "text_encoder_2": getattr(torch, second)}
    assert made[0] == made[1] == {"together": getattr(torch, together(texts)), **expected}


def run(model: Model) -> None:
    """The script's lines, as a user would run them."""
    code = loading(model, "there")
    names = {"torch": torch, "StableDiffusionXLPipeline": diffusers.StableDiffusionXLPipeline}
    exec("\n".join((*code.imports, *code.lines)), names)
