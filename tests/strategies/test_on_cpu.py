"""What only computing on the CPU knows: whom it refuses, what it costs, and when the search takes it."""

from dataclasses import replace
from typing import Any

import pytest
import transformers

from memplan.errors import BadInput
from memplan.facts import Facts, Weight
from memplan.planner import draw, recommend, seated
from memplan.planner.weighing import FINE
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.registry import parse_plan
from memplan.run import Run, Stored
from memplan.simulator import simulate
from memplan.strategies import STRATEGIES, GroupOffload, ModelOffload, OnCpu, OnGpu
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs

ENCODER = "text_encoder_2"


def measured(pipe: Any, family: str = "flux") -> Facts:
    twin = open_pipeline(pipe)
    return replace(facts_of(pipe), model=measure(twin.pipe), trace=dry_run(twin, inputs(family)))


@pytest.fixture(scope="module")
def facts() -> Facts:
    """FLUX with a text encoder whose table of words is larger than anything else."""
    pipe = build("flux")
    wide = transformers.T5Config(vocab_size=40_000, d_model=256, d_kv=32, d_ff=64, num_heads=8, num_layers=1)
    pipe.register_modules(text_encoder_2=transformers.T5EncoderModel(wide).eval())
    pipe.transformer = type(pipe.transformer).from_config({**pipe.transformer.config, "joint_attention_dim": 256})
    return measured(pipe)


def refusal(facts: Facts, strategy: OnCpu) -> str:
    return strategy.refuses(Run(facts)) or ""


# ---- whom it refuses ------------------------------------------------------------------------------------------------
def test_what_is_no_text_encoder_is_refused(facts: Facts) -> None:
    assert "only text encoders" in refusal(facts, OnCpu("transformer"))
    assert "only text encoders" in refusal(facts, OnCpu(ENCODER, "vae"))


def test_a_pipeline_that_keeps_it_on_its_device_is_refused(facts: Facts) -> None:
    elsewhere = replace(facts, trace=replace(facts.trace, host_side=((ENCODER,),)))
    assert "FluxPipeline has text_encoder compute on its own device" in refusal(elsewhere, OnCpu("text_encoder"))
    assert refusal(elsewhere, OnCpu(ENCODER, "text_encoder"))


def test_one_of_two_that_belong_together_is_refused(facts: Facts) -> None:
    pair = replace(facts, trace=replace(facts.trace, host_side=(("text_encoder", ENCODER),)))
    assert f"add also={ENCODER}" in refusal(pair, OnCpu("text_encoder"))
    assert list(OnCpu.variants(pair)) == [OnCpu("text_encoder", ENCODER)]
    assert parse_plan(f"on_cpu:text_encoder,also={ENCODER}", pair) == (OnCpu("text_encoder", ENCODER),)


def test_quantized_weights_are_refused(facts: Facts) -> None:
    encoder = replace(facts.model.component(ENCODER), weights=(Weight("w", 3, "uint8"),))
    parts = tuple(encoder if c.name == ENCODER else c for c in facts.model.components)
    assert "stored quantized" in refusal(replace(facts, model=replace(facts.model, components=parts)), OnCpu(ENCODER))


def test_a_device_that_has_no_memory_of_its_own_is_refused() -> None:
    assert "the host's own" in refusal(facts_of(build("flux"), kind="mps", unified=True), OnCpu(ENCODER))


def test_whole_pipelines_have_no_place_for_it(facts: Facts) -> None:
    every = ModelOffload(tuple(c.name for c in facts.model.components))
    with pytest.raises(BadInput, match="both decide the placement of text_encoder_2: keep one"):
        seated(facts, (every, OnCpu(ENCODER)))


def test_a_component_that_is_offloaded_already_is_refused() -> None:
    pipe = build("flux")
    GroupOffload(ENCODER).apply(pipe, "cpu")
    with pytest.raises(BadInput, match="in groups already"):
        OnCpu(ENCODER).apply(pipe, "cpu")


# ---- what it costs --------------------------------------------------------------------------------------------------
def test_nothing_of_it_is_on_the_device(facts: Facts) -> None:
    before, after = draw(facts, ()).bill, draw(facts, (OnCpu(ENCODER),)).bill
    size = facts.model.component(ENCODER).size
    assert before.peak.weights - after.peak.weights == size > 0
    assert after.traffic.link == 0
    (encoding,) = (peak for peak in after.peaks if peak.component == ENCODER)
    (elsewhere,) = (peak for peak in before.peaks if peak.component == ENCODER)
    (call,) = (call for call in facts.trace.calls if call.component == ENCODER)
    assert (encoding.copies, encoding.activations, encoding.op) == (0, call.base, "")
    assert encoding.memory.required < elsewhere.memory.required - size


def test_its_weights_and_activations_are_in_host_memory(facts: Facts) -> None:
    before, after = draw(facts, ()).bill, draw(facts, (OnCpu(ENCODER),)).bill
    (call,) = (call for call in facts.trace.calls if call.component == ENCODER)
    size, held = facts.model.component(ENCODER).size, call.peak_segment.peak
    assert after.host.steady - before.host.steady == size
    hosts = {peak.component: peak.host for peak in after.peaks}
    assert hosts[ENCODER] - hosts["transformer"] == held > 0
    assert after.host.peak == max(hosts.values())


def test_a_layer_that_is_cast_is_cast_there(facts: Facts) -> None:
    run = Run(facts).store(ENCODER, Stored("float8_e4m3fn"))
    plain, there = simulate(OnGpu(ENCODER).redraw(run)), simulate(OnCpu(ENCODER).redraw(run))
    assert max(peak.copies for peak in plain.peaks if peak.component == ENCODER) > 0
    assert max(peak.copies for peak in there.peaks) == 0
    assert there.host.steady - plain.host.steady == facts.model.component(ENCODER).cast_size


def test_what_the_cpu_computes_is_charged(facts: Facts) -> None:
    before, after = draw(facts, ()), draw(facts, (OnCpu(ENCODER),))
    (call,) = (call for call in facts.trace.calls if call.component == ENCODER)
    assert after.bill.host_flops == call.flops > 0
    assert before.bill.host_flops == 0
    assert after.effort > before.effort
    assert "text_encoder_2: activations on the CPU" in after.assumptions[0]
    assert before.assumptions == ()


# ---- when the search takes it ---------------------------------------------------------------------------------------
def on_card(facts: Facts, required: int) -> Facts:
    assert facts.machine.gpu
    return replace(facts, machine=replace(facts.machine, gpu=replace(facts.machine.gpu, total=required, free=required)))


USUAL = tuple(cls for cls in STRATEGIES if cls is not OnCpu)


def too_small(facts: Facts) -> Facts:
    """On a card that is too small for every plan without it, by more than the grain in which memory is judged."""
    least = recommend(on_card(facts, 1), USUAL).nearest.bill.peak.memory.required
    return on_card(facts, least - 2 * FINE)


def test_it_is_searched_only_where_nothing_fits_without_it(facts: Facts) -> None:
    assert not any(isinstance(s, OnCpu) for plan in recommend(facts, STRATEGIES).front for s in plan.strategies)
    small = too_small(facts)
    assert not recommend(small, USUAL).picks
    found = recommend(small, STRATEGIES)
    assert found.picks
    assert all(OnCpu(ENCODER) in plan.strategies for _, plan in found.picks)
    assert all("computed by the CPU" in plan.reason for _, plan in found.picks)


def test_it_is_not_searched_where_less_would_not_be_missing() -> None:
    """The denoiser is what does not fit."""
    small = too_small(measured(build("flux")))
    found = recommend(small, STRATEGIES)
    assert found.nearest.bill.peak.phase == "denoising"
    assert not any(isinstance(s, OnCpu) for plan in found.front for s in plan.strategies)
