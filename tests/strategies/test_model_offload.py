"""What only model offload knows: whom it refuses, and what it leaves on the device."""

from dataclasses import replace

import pytest

from memplan.errors import BadInput
from memplan.facts import Facts, Model, Weight
from memplan.run import OnCall, Resident, Run
from memplan.strategies import ModelOffload
from tests.measured_facts import facts_of
from tests.pipelines import build

ALL = ("vae", "text_encoder", "unet")


@pytest.fixture(scope="module")
def sd15() -> Facts:
    return facts_of(build("sd15"))


def changed(facts: Facts, **model: object) -> Run:
    """The run of a model that differs in these fields."""
    return Run(replace(facts, model=replace(facts.model, **model)))  # type: ignore[arg-type]


def test_variants_is_one_over_every_component(sd15: Facts) -> None:
    (strategy,) = ModelOffload.variants(sd15)
    assert strategy.components == ALL
    assert len(strategy.seats) == len(ALL)


def test_what_the_class_never_offloads_stays(sd15: Facts) -> None:
    run = ModelOffload(ALL).redraw(changed(sd15, never_offloaded=("vae",)))
    assert [run.placement(name) for name in ALL] == [Resident(), OnCall(), OnCall()]


def test_refuses_a_class_without_a_chain(sd15: Facts) -> None:
    assert "no order" in (ModelOffload(ALL).refuses(changed(sd15, offload_order=())) or "")
    assert not list(ModelOffload.variants(changed(sd15, offload_order=()).facts))


def test_refuses_a_part_of_the_pipeline(sd15: Facts) -> None:
    assert "text_encoder, unet would be left out" in (ModelOffload(("vae",)).refuses(Run(sd15)) or "")


def test_refuses_a_component_without_parameters(sd15: Facts) -> None:
    model: Model = sd15.model
    bare = replace(model.component("vae"), weights=(Weight("table", 4, "float32", buffer=True),))
    run = changed(sd15, components=(bare, *model.components[1:]))
    assert "vae has no parameters" in (ModelOffload(ALL).refuses(run) or "")


def test_a_pipeline_that_is_offloaded_already_is_refused() -> None:
    pipe = build("sd15")
    pipe.enable_model_cpu_offload(device="cpu")
    with pytest.raises(BadInput, match="remove_all_hooks"):
        ModelOffload(ALL).apply(pipe, "cpu")
