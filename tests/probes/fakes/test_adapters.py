"""Pipelines with LoRAs: adapters are counted and followed, and what does not go with them is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.hooks import apply_layerwise_casting

import memplan
from memplan.applier import apply
from memplan.errors import Unsupported
from memplan.facts import Component, Facts
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.run import Run
from memplan.strategies import GroupOffload, LayerwiseCasting, SequentialOffload
from memplan.strategy import Strategy
from tests.accuracy.cpu import SMALL, Pair, pairs
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.pipelines.loras import ATTENTION, CLIP, FILE, RANK, add, fused, saved, with_lora
from tests.probes.fakes.test_twin import anatomy
from tests.some import some
from tests.test_strategy_laws import attributes, picture

pytest.importorskip("peft", reason="diffusers loads LoRAs through peft alone")
FLOAT8 = torch.float8_e4m3fn
T5 = ("q", "k", "v", "o", "wo")


def loaded(pipe: Any, folder: Path) -> Any:
    """`pipe` with the LoRAs of the file in `folder`."""
    pipe.load_lora_weights(folder, weight_name=FILE)
    return pipe


def states(pipe: Any) -> list[tuple[Any, ...]]:
    """Of each wrapper which adapters it has, runs and has fused, and how strongly."""
    parts = (part for name in ("transformer", "text_encoder") for part in getattr(pipe, name).modules())
    layers = (part for part in parts if hasattr(part, "adapter_layer_names"))
    return [
        (layer.active_adapters, layer.merged_adapters, layer.disable_adapters, dict(layer.scaling)) for layer in layers
    ]


# ---- bytes -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", some(("transformer", "text_encoder"), "text_encoder"))
def test_bytes_of_a_lora(name: str) -> None:
    """Of each layer of m inputs and n outputs r * (m + n) more."""
    without, part = getattr(build("flux"), name), getattr(with_lora(build("flux")), name)
    targets = {"transformer": ATTENTION, "text_encoder": CLIP}[name]
    layers = [module.base_layer for path, module in part.named_modules() if path.endswith(targets)]
    expected = sum(RANK * (layer.in_features + layer.out_features) * 4 for layer in layers)
    assert layers
    found = component(part)
    assert found.size - sum(t.nbytes for t in (*without.parameters(), *without.buffers())) == expected
    assert sum(w.nbytes for w in found.weights if ".lora_" in w.name) == expected


def component(part: torch.nn.Module) -> Component:
    """What is measured of a module with fake weights."""
    (found,) = measure(open_pipeline(part).pipe).components
    return found


def plain(pipe: Any) -> Any:
    return pipe


# ---- peaks -----------------------------------------------------------------------------------------------------------
def dora(pipe: Any) -> None:
    add(pipe.transformer, ATTENTION, use_dora=True)


def loha(pipe: Any) -> None:
    add(pipe.transformer, ATTENTION, kind="LoHa")


def lokr(pipe: Any) -> None:
    add(pipe.transformer, ATTENTION, kind="LoKr")


def two(pipe: Any) -> None:
    add(pipe.transformer, ATTENTION, "first")
    add(pipe.transformer, ATTENTION, "second")
    pipe.transformer.set_adapter(["first", "second"])


def switched_off(pipe: Any) -> None:
    with_lora(pipe).transformer.disable_adapters()


def fused_and_off(pipe: Any) -> None:
    """The first call takes it out of the weights again."""
    fused(pipe).transformer.disable_adapters()


def as_text_only(pipe: Any) -> None:
    add(pipe.text_encoder, CLIP)
    add(pipe.text_encoder_2, T5)


KINDS: dict[str, Callable[[Any], Any]] = {
    f.__name__: f for f in (with_lora, fused, dora, loha, lokr, two, switched_off, fused_and_off, as_text_only)
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(KINDS, "with_lora"))
def test_it_peaks_where_the_real_run_does(kind: str) -> None:
    check(pairs("flux", size="tiny", prepare=KINDS[kind]))


@pytest.mark.wide
@pytest.mark.parametrize(("family", "size"), [("flux", "medium"), ("sdxl", "medium"), ("sd3", "tiny")])
def test_so_do_larger_ones_and_others(family: str, size: str) -> None:
    check(pairs(family, size=size, prepare=with_lora))


def check(found: list[Pair]) -> None:
    assert len(found) >= 4
    for pair in found:
        assert abs(pair.measured - pair.traced) <= SMALL, pair


def test_its_branches_are_in_the_trace() -> None:
    """Each wrapper computes its base layer and two thin ones beside it; a fused one its base layer alone."""
    called = {}
    for prepare in (plain, with_lora, fused):
        encoder = prepare(build("flux")).text_encoder
        trace = dry_run(open_pipeline(encoder), {"input_ids": torch.zeros(1, 77, dtype=torch.int64)})
        (one,) = (call for call in trace.calls if call.component)
        called[prepare] = (one.flops, sum(".lora_" in path for path in one.modules))
    (bare, _), (adapted, thin), (merged, none) = called.values()
    assert merged == bare < adapted
    assert thin == 3 * len(CLIP) * 2
    assert none == 0


# ---- the pipeline is left as it was ----------------------------------------------------------------------------------
@pytest.mark.wide
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_left_as_they_were(kind: str) -> None:
    pipe = build("flux")
    KINDS[kind](pipe)
    before, hooks, contents = states(pipe), anatomy(pipe), weights(pipe)
    memplan.probe(pipe)
    found = memplan.recommend(pipe, target=memplan.Target(vram=24, ram=64), **inputs("flux"))
    assert found.picks
    assert anatomy(pipe) == hooks
    assert states(pipe) == before
    assert all(torch.equal(tensor, contents[name]) for name, tensor in weights(pipe).items())


def weights(pipe: Any) -> dict[str, torch.Tensor]:
    """Copies of the weights of the transformer and the first text encoder."""
    parts = {name: getattr(pipe, name).state_dict() for name in ("transformer", "text_encoder")}
    return {f"{name}.{path}": tensor.clone() for name, table in parts.items() for path, tensor in table.items()}


@pytest.mark.slow
def test_a_lora_out_of_a_file_may_come_under_a_plan(tmp_path: Path) -> None:
    """diffusers takes its hooks off and on again; undo leaves the LoRA and no hook."""
    saved(with_lora(build("flux")), tmp_path)
    expected = loaded(build("flux"), tmp_path)
    first, clean = picture(expected, "flux"), attributes(expected)
    plan = (GroupOffload("transformer", "block_level", 1), GroupOffload("text_encoder"))
    with apply(plan, pipe := build("flux"), "cpu"):
        loaded(pipe, tmp_path)
        assert torch.equal(picture(pipe, "flux"), first)
    assert torch.equal(picture(pipe, "flux"), first)
    assert hooked(attributes(pipe)) == hooked(clean)


def hooked(found: dict[str, Any]) -> dict[str, set[str]]:
    """Of each module the names of its attributes, in which hooks would be seen."""
    return {path: set(names) for path, names in found.items() if isinstance(names, dict) and path != "pipe"}


# ---- layerwise casting -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", some(("transformer", "text_encoder", "text_encoder_2"), "text_encoder"))
def test_casting_spares_adapters(name: str) -> None:
    pipe = with_lora(build("flux"))
    add(pipe.text_encoder_2, T5)
    part = component(getattr(pipe, name))
    cast = {part.weights[i].name for i in part.cast}
    assert cast
    assert not [path for path in cast if ".lora_" in path]
    LayerwiseCasting(name, skip=part.cast_skip).apply(pipe, "cpu")
    assert {path for path, w in getattr(pipe, name).named_parameters() if w.dtype == FLOAT8} == cast
    pipe(**inputs("flux"))


def test_a_lora_cast_by_hand_is_followed_as_diffusers_runs_it() -> None:
    """diffusers keeps peft from casting activations to float8; what the call holds is what it held before."""
    encoder, call = build("flux").text_encoder, {"input_ids": torch.zeros(1, 77, dtype=torch.int64)}
    add(encoder, CLIP)
    peaks = [dry_run(open_pipeline(encoder), call).calls[0].activations]
    apply_layerwise_casting(encoder, FLOAT8, torch.float32, skip_modules_pattern=("norm", "embed"))
    assert {p.dtype for n, p in encoder.named_parameters() if "lora_A" in n} == {FLOAT8}
    with torch.no_grad():
        encoder(**call)
    peaks += [dry_run(open_pipeline(encoder), call).calls[0].activations]
    assert peaks[0] == peaks[1] > 0


def test_a_lora_after_casting_is_refused() -> None:
    pipe = build("flux")
    pipe.transformer.enable_layerwise_casting(storage_dtype=FLOAT8)
    add(pipe.transformer, ATTENTION)
    with pytest.raises(NotImplementedError, match="not implemented for 'Float8_e4m3fn'"):
        pipe(**inputs("flux"))
    before = anatomy(pipe)
    with pytest.raises(Unsupported, match=r"attn\.to_q has an adapter in float8, .* Load the LoRA first, then cast"):
        memplan.probe(pipe)
    assert anatomy(pipe) == before


def test_casting_under_a_dora_is_refused() -> None:
    pipe = build("flux")
    dora(pipe)
    pipe.transformer.enable_layerwise_casting(storage_dtype=FLOAT8)
    with pytest.raises(RuntimeError, match="Promotion for Float8 Types is not supported"):
        pipe(**inputs("flux"))
    with pytest.raises(Unsupported, match=r"attn\.to_q has a DoRA, which reads weights .* Fuse it first"):
        memplan.probe(pipe)


# ---- what does not go with them --------------------------------------------------------------------------------------
REFUSED: dict[str, tuple[type[Strategy], ...]] = {
    "dora": (LayerwiseCasting, GroupOffload, SequentialOffload),
    "loha": (GroupOffload, SequentialOffload),
    "lokr": (GroupOffload, SequentialOffload),
}


@pytest.mark.parametrize("kind", some(REFUSED, "dora"))
def test_what_reads_weights_without_calling_their_layers(kind: str) -> None:
    """Their leaves cannot be moved one by one; whole blocks can."""
    pipe = build("flux")
    KINDS[kind](pipe)
    twin = open_pipeline(pipe)
    facts = facts_of(twin.pipe)
    run = Run(Facts(facts.machine, facts.model, dry_run(twin, inputs("flux"))))
    leaf, block = GroupOffload("transformer"), GroupOffload("transformer", "block_level", 1)
    one_by_one = SequentialOffload(tuple(c.name for c in run.facts.model.components))
    words = "has a DoRA, which reads weights of layers" if kind == "dora" else "a table that no hook brings in"
    for strategy in (leaf, one_by_one):
        assert words in (strategy.refuses(run) or "")
    assert block.refuses(run) is None
    refusal = LayerwiseCasting("transformer").refuses(run)
    assert refusal is None or (kind == "dora" and "does not add up the float8 weights" in refusal)
    assert (refusal is None) == (LayerwiseCasting not in REFUSED[kind])


def test_a_fused_dora_is_in_no_way_of_anything() -> None:
    pipe = build("flux")
    dora(pipe)
    pipe.fuse_lora(components=["transformer"])
    found = measure(pipe).component("transformer")
    assert found.lack("layerwise_casting") is None
    assert not [technique for technique, _ in found.lacks if technique.startswith("leaf_level")]
