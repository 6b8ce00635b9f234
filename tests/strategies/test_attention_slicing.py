"""What only attention slicing knows: whom it refuses and in which words, and that the picture stays what it was."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, SlicedAttnProcessor, XFormersAttnProcessor

from memplan.run import Run
from memplan.strategies import AttentionSlicing
from tests.measured_facts import facts_of
from tests.pipelines import build
from tests.test_strategy_laws import picture


def test_refuses_apple() -> None:
    assert "Apple" in (AttentionSlicing().refuses(Run(facts_of(build("sdxl"), kind="mps"))) or "")


def test_refuses_where_it_lowers_nothing() -> None:
    facts = facts_of(build("sdxl"), ways={})
    assert "would not lower the peak of unet" in (AttentionSlicing().refuses(Run(facts)) or "")
    assert not list(AttentionSlicing.variants(facts))


def test_refuses_transformers() -> None:
    sentence = AttentionSlicing("transformer").refuses(Run(facts_of(build("flux")))) or ""
    assert sentence == "diffusers slices no attention of FluxTransformer2DModel"


def test_refuses_attention_of_another_library() -> None:
    pipe = build("sdxl")
    pipe.unet.set_attn_processor(XFormersAttnProcessor())
    assert "its XFormersAttnProcessor" in (AttentionSlicing().refuses(Run(facts_of(pipe))) or "")


@pytest.mark.parametrize("own", [None, AttnProcessor])
def test_the_way_back_is_to_the_attention_there_was(own: type[AttnProcessor] | None) -> None:
    pipe = build("sd15")
    if own:
        pipe.unet.set_attn_processor(own())
    before, expected = dict(pipe.unet.attn_processors), picture(pipe, "sd15")
    undo = AttentionSlicing().apply(pipe, "cpu")
    assert {type(p) for p in pipe.unet.attn_processors.values()} == {SlicedAttnProcessor}
    assert torch.allclose(picture(pipe, "sd15"), expected, atol=1e-3)
    undo()
    assert pipe.unet.attn_processors == before
    assert torch.equal(picture(pipe, "sd15"), expected)
