"""Which layers quantizers convert, and which they leave: bytes, and what comes out of models that have both."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

import memplan
from memplan.applier import apply
from memplan.errors import ApplyFailed, BadInput
from memplan.facts import Component
from memplan.probes.fakes.quantized import stored
from memplan.probes.pipeline import measure
from memplan.probes.sources.modules import as_pipeline
from memplan.run import Run, Stored
from memplan.simulator.weights import total
from memplan.strategies import Bnb4bit, Bnb8bit, Fp8WeightOnly, Int8Dynamic, Int8WeightOnly, ModelOpt, Quanto
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.some import some

KINDS = {kind.name: kind for kind in (Bnb4bit, Bnb8bit, Int8WeightOnly, Int8Dynamic, Fp8WeightOnly, Quanto, ModelOpt)}
over_kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
over_some = pytest.mark.parametrize("name", some(KINDS, "bnb_4bit", "int8_weight_only"))
FLOAT8 = torch.float8_e4m3fn


def nbytes(part: torch.nn.Module) -> int:
    """Bytes of weights and buffers, those of quantized ones with their scales."""
    return sum(n * (1 if kind == "uint8" else getattr(torch, kind).itemsize) for n, kind in held(part))


def held(part: torch.nn.Module) -> list[tuple[int, str]]:
    return [stored(tensor) for tensor in (*part.parameters(), *part.buffers())]


def component(part: torch.nn.Module) -> Component:
    (found,) = measure(as_pipeline(part)).components
    return found


def predicted(part: Component, strategy: Any) -> int:
    """Bytes of `part` as `strategy` says that it stores them."""
    return total(part, Stored(strategy.format, strategy.spare, sides=strategy.sides))


def off_by(made: torch.Tensor, exact: torch.Tensor) -> float:
    """The relative root-mean-square error."""
    return float((made.float() - exact.float()).norm().detach() / exact.float().norm().detach())


# ---- layers whose weight others read ---------------------------------------------------------------------------------
def siglip() -> tuple[Any, torch.Tensor]:
    """Its head pools with PyTorch's own attention, which reads the weight of `out_proj` without calling it."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    model: Any = SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=32, patch_size=8))
    return model.to(torch.bfloat16).eval(), torch.randn(1, 3, 32, 32, dtype=torch.bfloat16)


@over_some
@pytest.mark.parametrize("by_hand", [False, True], ids=["applied", "typed"])
def test_what_attention_reads_for_itself_stays(name: str, by_hand: bool) -> None:
    model, picture = siglip()
    exact = model(pixel_values=picture).pooler_output
    before = component(model)
    strategy = KINDS[name]("model", **KINDS[name].measured(before))
    pipe = SimpleNamespace(model=model)
    if by_hand:
        exec("\n".join(strategy.code("cpu")), {"pipe": pipe})
    else:
        strategy.apply(pipe, "cpu")
    left = [path for path, layer in model.named_modules() if type(layer).__name__ == "NonDynamicallyQuantizableLinear"]
    assert [path.rpartition(".")[2] for path in left] == ["out_proj"]
    assert nbytes(model) == predicted(before, strategy) < before.size
    assert 0 < off_by(model(pixel_values=picture).pooler_output, exact) < 0.2
    assert strategy.config(before) is None
    assert "the loaders would convert" in str(before.lack("quantized_loading"))


class Narrow(torch.nn.Module):
    """A layer of one column, as that of a mask or of a time."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.layer = torch.nn.Linear(1, 64), torch.nn.Linear(64, 64)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layer(self.widen(given))
        return made


@over_kinds
def test_a_single_column_stays(kind: Any) -> None:
    model, given = Narrow().to(torch.bfloat16), torch.ones(2, 1, dtype=torch.bfloat16)
    before, exact, strategy = component(model), model(given), kind("model")
    weight = model.widen.weight
    strategy.apply(SimpleNamespace(model=model), "cpu")
    assert model.widen.weight is weight
    assert nbytes(model) == predicted(before, strategy) < before.size
    assert 0 < off_by(model(given), exact) < 0.3


def test_quanto_s_bytes_do_not_take_transposed_inputs_on_the_cpu() -> None:
    pipe, strategy = build("flux", dtype=torch.bfloat16), Quanto("vae")
    facts = facts_of(pipe, kind="cpu")
    assert "transposed inputs of attention in vae: weights=float8" in str(strategy.refuses(Run(facts)))
    for free in (Quanto("vae", weights="float8"), Quanto("transformer")):
        assert free.refuses(Run(facts)) is None
    assert strategy.refuses(Run(facts_of(pipe))) is None
    strategy.apply(pipe, "cpu")
    with pytest.raises(RuntimeError, match="must be contiguous"):
        pipe(**inputs("flux"))


# ---- embeddings and heads --------------------------------------------------------------------------------------------
@over_some
@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_embeddings_and_heads_stay(name: str, tied: bool) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    config = Qwen2Config(**sizes, num_key_value_heads=2, vocab_size=256, tie_word_embeddings=tied)
    model: Any = Qwen2ForCausalLM(config)
    model.to(torch.bfloat16).eval()
    tokens = torch.arange(8)[None]
    exact, before = model(tokens).logits, component(model)
    strategy = KINDS[name]("model", **KINDS[name].measured(before))
    table, head = model.model.embed_tokens.weight, model.lm_head.weight
    strategy.apply(SimpleNamespace(model=model), "cpu")
    assert model.model.embed_tokens.weight is table
    assert model.lm_head.weight is head
    assert nbytes(model) == predicted(before, strategy) < before.size
    assert 0 < off_by(model(tokens).logits, exact) < 0.3


# ---- two experts -----------------------------------------------------------------------------------------------------
@pytest.mark.slow
@over_some
def test_two_experts_at_once(name: str) -> None:
    pipe = build("wan22", dtype=torch.bfloat16)
    before = facts_of(pipe)
    parts = map(before.model.component, ("transformer", "transformer_2"))
    plan = [KINDS[name](part.name, **KINDS[name].measured(part)) for part in parts]
    apply(plan, pipe, "cpu")
    for strategy in plan:
        expected = predicted(before.model.component(strategy.component), strategy)
        assert nbytes(getattr(pipe, strategy.component)) == expected
    called = list[str]()
    for part in ("transformer", "transformer_2"):
        getattr(pipe, part).register_forward_pre_hook(lambda *_, name=part: called.append(name))
    assert torch.isfinite(pipe(**inputs("wan22"))[0]).all()
    assert set(called) == {"transformer", "transformer_2"}


# ---- float8 ----------------------------------------------------------------------------------------------------------
@over_kinds
def test_what_is_stored_in_float8_is_not_quantized(kind: Any) -> None:
    pipe = build("wan", dtype=torch.bfloat16)
    pipe.transformer.enable_layerwise_casting(storage_dtype=FLOAT8)
    before = [(type(weight), weight.dtype) for weight in pipe.transformer.parameters()]
    assert "stored in float8 already" in str(kind("transformer").refuses(Run(facts_of(pipe))))
    with pytest.raises(ApplyFailed, match=r"stored in float8 already.*; the pipeline is as it was before"):
        apply([kind("transformer")], pipe, "cpu")
    assert [(type(weight), weight.dtype) for weight in pipe.transformer.parameters()] == before


@pytest.mark.slow
def test_no_plan_quantizes_what_is_stored_in_float8() -> None:
    """Found by the probe too, which looks at a copy with fake weights."""
    pipe = build("flux", dtype=torch.bfloat16)
    pipe.transformer.enable_layerwise_casting(storage_dtype=FLOAT8)
    with pytest.raises(BadInput, match=r"bnb_4bit:transformer cannot be: .* is stored in float8 already"):
        memplan.price(pipe, ["bnb_4bit:transformer"], target=memplan.Target(gpu="RTX 4090", ram=64), **inputs("flux"))
