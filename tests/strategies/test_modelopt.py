"""ModelOpt: what it stores only once it is compressed, what it is not offered for and why, and where its weights go."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import cpu_offload

from memplan.facts import Facts
from memplan.registry import parse_plan
from memplan.run import Run
from memplan.strategies import ModelOpt
from tests.conformance.device import Device, streams
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs

mtq = pytest.importorskip("modelopt.torch.quantization")
WEIGHTS = ("int8", "int4", "nvfp4")


@pytest.fixture(scope="module")
def facts() -> Facts:
    return facts_of(build("flux"))


def box(columns: int = 256, features: int = 128) -> Any:
    return SimpleNamespace(part=torch.nn.Sequential(torch.nn.Linear(columns, features, dtype=torch.bfloat16)))


def nbytes(part: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*part.parameters(), *part.buffers()))


# ---- what is not offered, and why ------------------------------------------------------------------------------------
def test_other_types_are_refused_with_the_reason(facts: Facts) -> None:
    assert "pipelines cast to that" in str(ModelOpt("transformer", weights="fp8").refuses(Run(facts)))
    assert "16384 elements" in str(ModelOpt("transformer", weights="nf4").refuses(Run(facts)))
    assert str(ModelOpt("transformer", weights="int2").refuses(Run(facts))).endswith("nvfp4, not int2")


def converted(part: Any, quantizer: dict[str, Any]) -> Any:
    off, on = {"quantizer_name": "*", "enable": False}, {"quantizer_name": "*weight_quantizer", "cfg": quantizer}
    mtq.quantize(part, {"quant_cfg": [off, on], "algorithm": "max"})
    return part


def test_nothing_is_saved_until_it_is_compressed() -> None:
    pipe = box()
    before = nbytes(pipe.part)
    converted(pipe.part, {"num_bits": 8, "axis": 0})
    assert nbytes(pipe.part) > before
    mtq.compress(pipe.part)
    assert nbytes(pipe.part) == 256 * 128 + 2 * 128 * 2 + 128 * 2  # bytes, magnitudes and scales of rows, bias


def test_nf4_cannot_be_made_into_weights_again() -> None:
    quantizer = {"num_bits": 4, "block_sizes": {-1: 64, "scale_bits": 8, "scale_block_sizes": {-1: 256}}}
    small, large = (converted(box(columns).part, quantizer) for columns in (128, 256))
    for part in (small, large):
        mtq.compress(part)
    assert small(torch.zeros(1, 128, dtype=torch.bfloat16)).shape == (1, 128)
    with pytest.raises(RuntimeError, match="must match the size"):
        large(torch.zeros(1, 256, dtype=torch.bfloat16))


def test_a_component_in_float8_claims_that_dtype() -> None:
    transformer = build("flux").transformer
    converted(transformer, {"num_bits": (4, 3), "axis": 0})
    mtq.compress(transformer)
    assert transformer.dtype == torch.float8_e4m3fn


def test_the_config_of_diffusers_cannot_be_made(facts: Facts) -> None:
    from diffusers import NVIDIAModelOptConfig

    with pytest.raises(TypeError, match="not a mapping"):
        NVIDIAModelOptConfig("INT8")
    assert ModelOpt("transformer").config(facts.model.component("transformer")) is None


# ---- what is ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weights", WEIGHTS)
def test_code_makes_the_same_layers(weights: str) -> None:
    strategy, given = ModelOpt("part", weights=weights), torch.ones(2, 256, dtype=torch.bfloat16)
    applied = box()
    typed = SimpleNamespace(part=torch.nn.Sequential(torch.nn.Linear(256, 128, dtype=torch.bfloat16)))
    typed.part.load_state_dict(applied.part.state_dict())
    strategy.apply(applied, "cpu")
    exec("\n".join(strategy.code("cpu")), {"pipe": typed})
    assert nbytes(applied.part) == nbytes(typed.part)
    assert torch.equal(applied.part(given), typed.part(given))


def test_the_original_comes_back_where_it_was_kept() -> None:
    pipe, given = box(), torch.ones(2, 256, dtype=torch.bfloat16)
    layer, expected = pipe.part[0], pipe.part(given)
    undo = ModelOpt("part", keep_original=True).apply(pipe, "cpu")
    assert pipe.part[0] is not layer
    undo()
    assert pipe.part[0] is layer
    assert torch.equal(pipe.part(given), expected)


# ---- where it goes ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("settings", ["level=leaf_level", "level=block_level,blocks=1", "stream=true"])
@pytest.mark.parametrize("weights", ["int8", "nvfp4"])
def test_what_groups_bring_to_the_device_and_take_away(facts: Facts, weights: str, settings: str) -> None:
    """On a pretend device: everything, but that streams leave the scales there, which is why they are refused."""
    plan = f"modelopt:transformer,weights={weights} + group_offload:transformer,{settings}"
    (stored, placed), pipe = parse_plan(plan, facts), build("flux")
    stored.apply(pipe, "cpu")
    expected = pipe(**inputs("flux"))[0]
    with streams(), Device(pipe) as device:
        placed.apply(pipe, "cuda")
        for name in ("text_encoder", "text_encoder_2", "vae"):
            getattr(pipe, name).to("cuda")
        assert torch.equal(pipe(**inputs("flux"))[0].to("cpu"), expected)
        left = device.held["transformer"]
    refusal = str(placed.refuses(stored.redraw(Run(facts))))
    scales = sum(buffer.nbytes for buffer in pipe.transformer.buffers())
    assert (left, "leave ModelOpt's scales" in refusal) == ((scales, True) if "stream" in settings else (0, False))


def test_accelerate_cannot_replace_it(facts: Facts) -> None:
    pipe = box()
    ModelOpt("part").apply(pipe, "cpu")
    with pytest.raises(RuntimeError, match="set_data"):
        cpu_offload(pipe.part, torch.device("cpu"))
    assert "cannot replace" in str(ModelOpt("transformer").redraw(Run(facts)).lack("transformer", "sequential"))
