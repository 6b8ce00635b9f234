"""A ModularPipeline in memory is planned like other pipelines, as far as diffusers offers the same for it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import ComponentsManager, FluxAutoBlocks

import memplan
from memplan.applier import apply
from memplan.errors import BadInput
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.run import Run
from memplan.strategies import GroupOffload, SetAside, VaeSlicing
from tests.accuracy.cpu import pairs
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.pipelines.modular import MODULAR
from tests.some import some
from tests.test_strategy_laws import attributes, picture

TARGET = memplan.Target(vram=8, ram=16)


@pytest.mark.slow
@pytest.mark.parametrize("family", some(MODULAR, "modular_flux"))
def test_its_calls_hold_what_real_ones_hold(family: str) -> None:
    found = pairs(family)
    assert {pair.component for pair in found} > {"text_encoder", "vae"}
    for pair in found:
        assert abs(pair.error) <= pair.tolerance, pair


@pytest.mark.slow
def test_its_components_hold_what_they_hold_in_the_familys_pipeline() -> None:
    def peaks(family: str) -> dict[tuple[str, str], int]:
        trace = dry_run(open_pipeline(build(family)), inputs(family))
        return {(c.component, c.method): c.peak_segment.peak for c in trace.calls if c.component}

    assert peaks("modular_flux") == peaks("flux")


def test_the_names_of_its_inputs_are_checked() -> None:
    with pytest.raises(BadInput, match=r"no argument 'heigth'\. Did you mean height\?"):
        memplan.recommend(build("modular_flux"), target=TARGET, heigth=32)


def test_pictures_that_it_can_do_without_are_not_made_up() -> None:
    trace = dry_run(open_pipeline(build("modular_flux")), {"prompt": "a dog", "height": 32, "width": 32})
    assert not [value for _, value in trace.arguments if "made-up" in value]
    assert not [call for call in trace.calls if call.method == "encode"]


def test_a_given_picture_is_encoded() -> None:
    trace = dry_run(open_pipeline(build("modular_flux")), inputs("modular_flux") | {"image": "32x32", "strength": 1.0})
    assert ("vae", "encode") in {(call.component, call.method) for call in trace.calls}


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("model_offload", "which has no chain of components: a ComponentsManager chooses"),
        ("sequential_offload", "for which diffusers has none; group_offload of leaves holds as little"),
    ],
)
def test_what_diffusers_does_not_offer_for_it_is_refused(plan: str, words: str) -> None:
    with pytest.raises(BadInput, match=f"FluxModularPipeline is a ModularPipeline, {words}"):
        memplan.price(build("modular_flux"), [plan], target=TARGET, **inputs("modular_flux"))


def test_its_first_component_says_where_it_runs_and_cannot_be_set_aside() -> None:
    facts = facts_of(build("modular_flux"))
    idle = replace(facts, trace=replace(facts.trace, calls=()))
    refusals = {c.name: SetAside(c.name).refuses(Run(idle)) for c in facts.model.components}
    assert refusals.pop("text_encoder") == "FluxModularPipeline runs where text_encoder is, its first component"
    assert set(refusals.values()) == {None}


@pytest.mark.slow
@pytest.mark.parametrize("family", some(MODULAR, "modular_flux"))
def test_a_plan_is_applied_and_undone(family: str) -> None:
    pipe = build(family)
    expected, before = picture(pipe, family), attributes(pipe)
    with apply([GroupOffload("vae"), VaeSlicing("vae")], pipe, "cpu"):
        assert attributes(pipe) != before
        assert torch.equal(picture(pipe, family), expected)
    assert attributes(pipe) == before
    assert torch.equal(picture(pipe, family), expected)


def test_it_is_only_read() -> None:
    pipe = build("modular_flux")
    before = attributes(pipe)
    open_pipeline(pipe)
    assert attributes(pipe) == before


def test_without_components_it_says_what_to_load() -> None:
    with pytest.raises(BadInput, match=r"has no component with weights: load text_encoder, .*, transformer with load_"):
        open_pipeline(FluxAutoBlocks().init_pipeline())


def test_a_manager_of_components_stays_out_of_it() -> None:
    manager = ComponentsManager()
    pipe: Any = FluxAutoBlocks().init_pipeline(components_manager=manager)
    parts = build("modular_flux").components
    pipe.update_components(**{name: parts[name] for name in pipe.null_component_names})
    held = set(manager.components)
    assert held
    dry_run(open_pipeline(pipe), inputs("modular_flux"))
    assert set(manager.components) == held
