"""What all quantizers have in common: what they refuse, what they spare, and that one layer is done at a time."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from memplan.applier import apply
from memplan.errors import ApplyFailed
from memplan.facts import Component, Facts, Model, Trace, Weight
from memplan.planner import draw
from memplan.registry import parse
from memplan.run import Run
from memplan.simulator import simulate
from memplan.simulator.formats import FORMATS
from memplan.simulator.weights import originals, total
from memplan.strategies import (
    Bnb4bit,
    Bnb8bit,
    Fp8Dynamic,
    Fp8WeightOnly,
    GroupOffload,
    Int4WeightOnly,
    Int8WeightOnly,
    ModelOpt,
    Quanto,
)
from tests.faces import small
from tests.measured_facts import facts_of
from tests.pipelines import build
from tests.pipelines.loras import add


@pytest.fixture(scope="module")
def facts() -> Facts:
    return facts_of(build("flux"))


def on(facts: Facts, **gpu: Any) -> Run:
    assert facts.machine.gpu
    return Run(replace(facts, machine=replace(facts.machine, gpu=replace(facts.machine.gpu, **gpu))))


# ---- what they refuse ------------------------------------------------------------------------------------------------
def test_a_package_that_is_absent_or_old_is_named(facts: Facts) -> None:
    bare = Run(replace(facts, machine=replace(facts.machine, packages=())))
    assert 'pip install "bitsandbytes>=0.48"' in str(parse("bnb_4bit", facts).refuses(bare))
    old = Run(replace(facts, machine=replace(facts.machine, packages=(("torchao", "0.9.0"),))))
    assert "0.9.0 is installed" in str(parse("int8_weight_only", facts).refuses(old))


def test_a_card_that_cannot_compute_so_is_named(facts: Facts) -> None:
    strategy = parse("fp8_dynamic", facts)
    assert "compute capability 8.9, and a GPU has 8.6" in str(strategy.refuses(on(facts, capability=(8, 6))))
    assert strategy.refuses(on(facts, capability=(8, 9))) is None
    assert "this is mps" in str(strategy.refuses(on(facts, kind="mps")))


def test_what_the_library_spares_must_be_spared(facts: Facts) -> None:
    assert parse("bnb_4bit:text_encoder_2", facts) == Bnb4bit("text_encoder_2", spare=("wo",))
    assert "wo" in str(Bnb4bit("text_encoder_2").refuses(Run(facts)))
    assert parse("int8_weight_only:text_encoder_2", facts) == Int8WeightOnly("text_encoder_2")


def test_a_format_that_breaks_a_placement_says_so(facts: Facts) -> None:
    run = parse("bnb_4bit", facts).redraw(Run(facts))
    assert "scales" in str(parse("group_offload:transformer", facts).refuses(run))
    assert parse("group_offload:transformer", facts).refuses(Run(facts)) is None


@pytest.mark.parametrize("kind", [Bnb4bit, Bnb8bit, Int8WeightOnly, Quanto, ModelOpt])
def test_nothing_is_quantized_twice(kind: Any) -> None:
    pipe, strategy = build("flux"), kind("transformer")
    apply([strategy], pipe, "cpu").undo()
    assert "quantized already" in str(strategy.refuses(Run(facts_of(pipe))))
    before = [type(weight) for weight in pipe.transformer.parameters()]
    with pytest.raises(ApplyFailed, match="already"):
        apply([Fp8WeightOnly("transformer")], pipe, "cpu")
    apply([strategy], pipe, "cpu")  # which has nothing left to do
    assert [type(weight) for weight in pipe.transformer.parameters()] == before


def test_a_component_without_linear_layers() -> None:
    pipe = build("wan")
    assert "no linear layers" in str(Int8WeightOnly("vae").refuses(Run(facts_of(pipe))))
    with pytest.raises(ApplyFailed, match="no linear layer"):
        apply([Int8WeightOnly("vae")], pipe, "cpu")


@pytest.mark.parametrize("kind", ["Lora", "LoHa", "LoKr"])
def test_an_adapter_is_not_quantized_away(kind: str) -> None:
    pipe = build("flux")
    add(pipe.transformer, ("to_q",), kind=kind)
    before = {name: weight.clone() for name, weight in pipe.transformer.state_dict().items()}
    assert "has an adapter" in str(Int8WeightOnly("transformer").refuses(Run(facts_of(pipe))))
    with pytest.raises(ApplyFailed, match="has an adapter, such as a LoRA"):
        apply([Int8WeightOnly("transformer")], pipe, "cpu")
    after = pipe.transformer.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_a_format_that_leaves_every_layer_says_which_it_takes(facts: Facts) -> None:
    half = facts_of(build("flux", dtype=torch.bfloat16))
    assert Int4WeightOnly("text_encoder_2").refuses(Run(half)) == (
        "int4_weight_only would leave every linear layer of T5EncoderModel: it takes weights whose columns are a "
        "multiple of 128"
    )
    narrow = replace_weights(facts, lambda w: replace(w, numel=w.columns * 24) if w.columns else w)
    assert Fp8Dynamic("transformer").refuses(on(narrow, capability=(8, 9))) == (
        "fp8_dynamic would leave every linear layer of FluxTransformer2DModel: it takes weights whose columns are a "
        "multiple of 16 and rows are a multiple of 16"
    )
    with pytest.raises(ApplyFailed, match="has no linear layer that int4_weight_only could convert"):
        apply([Int4WeightOnly("text_encoder_2")], build("flux", dtype=torch.bfloat16), "cpu")


def replace_weights(facts: Facts, change: Callable[[Weight], Weight]) -> Facts:
    """The same facts with other weights."""
    parts = (replace(part, weights=tuple(map(change, part.weights))) for part in facts.model.components)
    return replace(facts, model=replace(facts.model, components=tuple(parts)))


def test_only_what_is_converted_counts() -> None:
    """By hand: of two matrices one has sides that fp8_dynamic takes, and it alone is stored otherwise."""
    wide, narrow = (Weight(f"{n}.weight", n * 32, "bfloat16", columns=n) for n in (64, 40))
    part = Component("part", "Part", "other", "bfloat16", (wide, narrow))
    run = Run(Facts(small.machine(8, 32), Model("m", "M", (part,)), Trace("cuda", (), ())))
    stored = Fp8Dynamic("part", keep_original=True).redraw(run).stored("part")
    assert stored.matrices(part) == (0,)
    assert originals(part, stored) == wide.nbytes
    assert total(part, stored) == 64 * 32 + 4 + narrow.nbytes
    loss = simulate(run.store("part", stored)).loss.error
    assert loss == pytest.approx(FORMATS["float8 dynamic"].error * wide.numel / (wide.numel + narrow.numel))


def test_int4_comes_in_groups_but_not_in_streams(facts: Facts) -> None:
    run = Int4WeightOnly("transformer").redraw(Run(facts))
    assert GroupOffload("transformer").refuses(run) is None
    ways: tuple[dict[str, Any], ...] = ({"stream": True}, {"stream": True, "low_cpu_mem": True})
    for way in ways:
        assert "cannot be pinned" in str(GroupOffload("transformer", **way).refuses(run))
        assert GroupOffload("transformer", **way).refuses(Run(facts)) is None


def test_quanto_in_4_bits_is_bfloat16_and_stays_where_it_is_packed(facts: Facts) -> None:
    four_bit = Quanto("text_encoder", weights="int4")
    half = facts_of(build("flux", size="medium", dtype=torch.bfloat16))
    assert "weights is int8, float8 or int4" in str(Quanto("transformer", weights="int2").refuses(Run(facts)))
    assert "text_encoder is in float32" in str(four_bit.refuses(Run(facts)))
    assert "needs compute capability 8.0" in str(four_bit.refuses(on(half, capability=(7, 5))))
    run = Run(half)
    assert four_bit.refuses(run) is None
    stored = four_bit.redraw(run)
    for technique in ("model_offload", "set_aside"):
        assert "packed for the device" in str(stored.lack("text_encoder", technique))
        assert Quanto("text_encoder").redraw(run).lack("text_encoder", technique) is None


@pytest.mark.parametrize("by_hand", [False, True], ids=["applied", "typed"])
def test_quanto_in_4_bits_leaves_layers_that_its_kernel_does_not_take(by_hand: bool) -> None:
    sizes = {"groups": (256, 32), "one group": (128, 16), "no group": (64, 16), "odd rows": (128, 8)}
    part = torch.nn.ModuleDict({n: torch.nn.Linear(*size, dtype=torch.bfloat16) for n, size in sizes.items()})
    pipe, strategy = SimpleNamespace(part=part), Quanto("part", weights="int4")
    if by_hand:
        exec("\n".join(strategy.code("cpu")), {"pipe": pipe})
    else:
        strategy.apply(pipe, "cpu")
    kinds = {name: type(layer.weight).__name__ for name, layer in part.items()}
    packed = "TinyGemmWeightQBitsTensor"
    assert kinds == {"groups": packed, "one group": packed, "no group": "Parameter", "odd rows": "Parameter"}


# ---- originals -------------------------------------------------------------------------------------------------------
def test_originals_are_kept_on_request(facts: Facts) -> None:
    plain, kept = (draw(facts, [Int8WeightOnly("transformer", keep_original=keep)]) for keep in (False, True))
    transformer = facts.model.component("transformer")
    size = originals(transformer, kept.run.stored("transformer"))
    assert size == sum(transformer.weights[i].nbytes for i in transformer.matrices()) > 0
    assert kept.bill.host.steady - plain.bill.host.steady == size
    assert Int8WeightOnly("transformer", keep_original=True).final is None
    assert "keep_original" in str(Int8WeightOnly("transformer").final)


@pytest.mark.parametrize("kind", [Int8WeightOnly, Bnb4bit, Quanto, ModelOpt])
def test_one_layer_at_a_time_has_its_weight_twice(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No original outlives the conversion of its layer."""
    part = torch.nn.Sequential(*(torch.nn.Linear(128, 128) for _ in range(3)))
    pipe, originals, convert = SimpleNamespace(transformer=part), list[weakref.ref[Any]](), kind.convert

    def watched(self: Any, part: Any, path: str, layer: Any, device: str) -> None:
        gc.collect()
        assert all(original() is None for original in originals), path
        originals.append(weakref.ref(layer.weight))
        convert(self, part, path, layer, device)

    monkeypatch.setattr(kind, "convert", watched)
    kind("transformer").apply(pipe, "cpu")
    assert len(originals) == 3


def test_named_modules_stay_as_they_are() -> None:
    pipe = build("flux")
    strategy = Fp8Dynamic("transformer", spare=("transformer_blocks.0", "proj_out"))
    transformer = facts_of(pipe).model.component("transformer")
    names = [transformer.weights[i].name for i in transformer.matrices(strategy.spare)]
    assert names
    assert not any(name.startswith(("transformer_blocks.0.", "proj_out.")) for name in names)
    kept = Int8WeightOnly("transformer", spare=strategy.spare)
    kept.apply(pipe, "cpu")
    plain = [path for path, layer in pipe.transformer.named_modules() if is_plain(layer)]
    assert all(path.startswith(("transformer_blocks.0.", "proj_out")) or ".proj_out" in path for path in plain)


def is_plain(layer: torch.nn.Module) -> bool:
    """Whether it is a linear layer as loaded."""
    return isinstance(layer, torch.nn.Linear) and type(layer.weight) is torch.nn.Parameter


# ---- finer settings --------------------------------------------------------------------------------------------------
def test_the_first_and_the_last_block_are_spared_first() -> None:
    facts = facts_of(build("flux"))
    component = facts.model.component("transformer")
    layers = [f"blocks.{i}.{name}" for i in range(6) for name in ("to_q", "to_k")] + ["proj_out"]
    weights = tuple(Weight(f"{layer}.weight", 64, "bfloat16", columns=8) for layer in layers)
    model = replace(facts.model, components=(replace(component, weights=weights),))
    finer = Bnb4bit("transformer", spare=("proj_out",)).finer(replace(facts, model=model))
    assert [s.spare for s in finer] == [("proj_out", "blocks.0"), ("proj_out", "blocks.0", "blocks.5")]


def test_measured_errors_say_which_layers_are_spared_first() -> None:
    facts = facts_of(build("flux"))
    component = facts.model.component("transformer")
    numbers = component.matrices()
    errors = tuple(0.01 * (i % 11) for i in range(len(numbers)))
    known = replace(component, errors=(("nf4 nested", errors),))
    model = replace(facts.model, components=(known,))
    finer = Bnb4bit("transformer").finer(replace(facts, model=model))
    assert len(finer) == 8
    assert all(later.spare[:-1] == earlier.spare for earlier, later in pairwise(finer))
    by_name = {component.weights[i].module: error for i, error in zip(numbers, errors, strict=True)}
    spared = [by_name[name] for name in finer[-1].spare]
    assert spared == sorted(spared, reverse=True)
    assert min(spared) >= max(error for name, error in by_name.items() if name not in finer[-1].spare)


def test_a_layer_that_is_spared_stays_as_it_is() -> None:
    pipe = build("flux")
    name = "single_transformer_blocks.0.proj_mlp"
    before = pipe.transformer.get_submodule(name).weight.clone()
    Bnb4bit("transformer", spare=(name,)).apply(pipe, "cpu")
    assert torch.equal(pipe.transformer.get_submodule(name).weight, before)
    assert pipe.transformer.get_submodule("single_transformer_blocks.1.proj_mlp").weight.dtype == torch.uint8


def test_what_is_spared_must_be_there() -> None:
    facts = small.facts()
    part = facts.model.component("transformer")
    weights = tuple(replace(w, columns=1024) for w in part.weights)
    parts = tuple(replace(c, weights=weights) if c.name == "transformer" else c for c in facts.model.components)
    machine = replace(facts.machine, packages=(("torchao", "0.17"),))
    facts = replace(facts, model=replace(facts.model, components=parts), machine=machine)
    refusal = Int8WeightOnly("transformer", spare=("layers.1", "layers.99", "proj_uot")).refuses(Run(facts))
    assert refusal == "spare names layers.99, proj_uot, and Transformer has no such module"
    assert Int8WeightOnly("transformer", spare=("layers.1",)).refuses(Run(facts)) is None
