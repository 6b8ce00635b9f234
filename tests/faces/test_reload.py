"""What a plan has given up is loaded anew."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

import memplan
from memplan.applier import apply
from memplan.errors import BadInput
from memplan.strategies import Bnb4bit, Int8WeightOnly, OnGpu
from tests.pipelines import build, inputs

PARTS = ("transformer", "text_encoder_2")


@pytest.mark.slow
@pytest.mark.parametrize("loaded_by", [pytest.param("diffusers", marks=pytest.mark.wide), "memplan"])
def test_the_originals_are_back(loaded_by: str, tmp_path: Path) -> None:
    """Whether each component was loaded with the pipeline or by itself; what was not quantized is left alone."""
    build("flux", dtype=torch.bfloat16).save_pretrained(tmp_path)
    pipe: Any = DiffusionPipeline.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    expected = pipe(**inputs("flux"))[0]
    if loaded_by == "memplan":
        room = memplan.Target(vram=4, ram=8)
        pipe = memplan.load(tmp_path, "on_gpu:vae", target=room, device="cpu")
        done = memplan.applied(pipe)
        assert done is not None
        done.undo()
    vae = pipe.vae
    apply((Int8WeightOnly("transformer"), Bnb4bit("text_encoder_2", spare=("wo",)), OnGpu("vae")), pipe, "cpu")
    assert not torch.equal(pipe(**inputs("flux"))[0], expected)
    said: list[str] = []
    assert set(memplan.reload(pipe, progress=said.append)) == set(PARTS)
    assert sorted(said) == sorted(f"loading {name}" for name in PARTS)
    assert torch.equal(pipe(**inputs("flux"))[0], expected)
    assert pipe.vae is vae
    assert memplan.applied(pipe) is None


def test_what_was_made_in_memory_is_left_as_it_is() -> None:
    pipe = build("flux", dtype=torch.bfloat16)
    with pytest.raises(BadInput, match="nothing is applied to this pipeline"):
        memplan.reload(pipe)
    with apply((Int8WeightOnly("transformer"),), pipe, "cpu") as done:
        with pytest.raises(BadInput, match=r"transformer was made in memory.*Nothing has been undone"):
            memplan.reload(pipe)
        assert memplan.applied(pipe) is done


def test_what_keeps_its_originals_is_only_undone() -> None:
    pipe = build("flux", dtype=torch.bfloat16)
    apply((Int8WeightOnly("transformer", keep_original=True),), pipe, "cpu")
    assert memplan.reload(pipe) == ()
    assert type(pipe.transformer.x_embedder.weight) is torch.nn.Parameter
