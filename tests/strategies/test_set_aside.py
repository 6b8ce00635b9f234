"""What only setting aside knows: whom it refuses, what it costs, and that the search takes it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from memplan.errors import BadInput
from memplan.facts import Facts
from memplan.planner import recommend
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.run import Run
from memplan.simulator import simulate
from memplan.strategies import GroupOffload, ModelOffload, OnGpu, SetAside
from tests.conformance.device import Device
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.pipelines.pictures import image_encoder


def with_image_encoder() -> Any:
    pipe = build("flux")
    pipe.register_modules(image_encoder=image_encoder())
    return pipe


@pytest.fixture(scope="module")
def facts() -> Facts:
    return facts_of(with_image_encoder())


def refusal(facts: Facts, component: str = "image_encoder") -> str:
    return SetAside(component).refuses(Run(facts)) or ""


def test_what_is_called_is_refused(facts: Facts) -> None:
    assert "uses transformer" in refusal(facts, "transformer")


def test_what_runs_otherwise_than_by_a_call_is_refused(facts: Facts) -> None:
    assert "uses image_encoder" in refusal(replace(facts, trace=replace(facts.trace, reached=("image_encoder",))))


def test_what_no_dry_run_would_see_is_refused() -> None:
    pipe = build("flux")
    unseen = torch.nn.Module()
    unseen.mean = torch.nn.Parameter(torch.zeros(3))
    pipe.register_modules(image_encoder=unseen)
    assert "has no forward()" in refusal(facts_of(pipe))


def test_a_device_that_has_no_memory_of_its_own_is_refused() -> None:
    assert "the host's own" in refusal(facts_of(with_image_encoder(), kind="mps", unified=True))


def test_a_component_that_is_offloaded_already_is_refused() -> None:
    pipe = with_image_encoder()
    ModelOffload(("image_encoder",)).apply(pipe, "cpu")
    with pytest.raises(BadInput, match="remove_all_hooks"):
        SetAside("image_encoder").apply(pipe, "cpu")


def test_it_frees_its_whole_size_and_moves_nothing(facts: Facts) -> None:
    run = Run(facts)
    before, after = simulate(run), simulate(SetAside("image_encoder").redraw(run))
    size = facts.model.component("image_encoder").size
    assert before.peak.weights - after.peak.weights == size > 0
    assert (after.traffic.link, after.loss.error) == (0, 0)
    assert after.host.peak - before.host.peak == size


def test_the_search_takes_it_where_it_helps() -> None:
    """On a card with room for all but the image encoder."""
    pipe = build("flux")
    large = transformers.CLIPVisionConfig(
        hidden_size=512, intermediate_size=4096, num_attention_heads=8, num_hidden_layers=3, image_size=32, patch_size=8
    )
    pipe.register_modules(image_encoder=transformers.CLIPVisionModelWithProjection(large))
    twin = open_pipeline(pipe)
    facts = replace(facts_of(pipe), trace=dry_run(twin, inputs("flux")))
    need = simulate(Run(facts)).peak.memory.required
    assert facts.machine.gpu
    card = replace(facts.machine.gpu, total=need - 1, free=need - 1)
    small = replace(facts, machine=replace(facts.machine, gpu=card))
    speed = recommend(small, (OnGpu, GroupOffload, SetAside)).pick("speed")
    assert speed is not None
    assert SetAside("image_encoder") in speed.strategies
    assert speed.bill.traffic.link == 0


def test_a_call_with_embeddings_is_planned_without_text_encoders() -> None:
    pipe, call = build("flux"), inputs("flux")
    with torch.no_grad():
        embeds, pooled, _ = pipe.encode_prompt(call.pop("prompt"), max_sequence_length=call["max_sequence_length"])
    call |= {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    facts = replace(facts_of(pipe), trace=dry_run(open_pipeline(pipe), call))
    encoders = ("text_encoder", "text_encoder_2")
    assert {strategy.component for strategy in SetAside.variants(facts)} == {*encoders}
    run = Run(facts)
    aside = SetAside("text_encoder_2").redraw(SetAside("text_encoder").redraw(run))
    size = sum(facts.model.component(name).size for name in encoders)
    assert simulate(run).peak.weights - simulate(aside).peak.weights == size
    assert not any(peak.component in encoders for peak in simulate(aside).peaks)
    with Device(pipe):
        for strategy in (*map(SetAside, encoders), OnGpu("transformer"), OnGpu("vae")):
            strategy.apply(pipe, "cuda")
        given = {name: call[name].to("cuda") for name in ("prompt_embeds", "pooled_prompt_embeds")}
        assert pipe(**call | given)[0].isfinite().all()
