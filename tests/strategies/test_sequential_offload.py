"""What only sequential offload knows: whom it refuses, what stays, and that the same tensors come back."""

from dataclasses import replace

import pytest
import torch

from memplan.errors import BadInput
from memplan.facts import SEQUENTIAL, Facts
from memplan.run import InGroups, Resident, Run, Stored
from memplan.simulator import simulate
from memplan.simulator.movers import outside
from memplan.strategies import ModelOffload, SequentialOffload
from tests.measured_facts import facts_of
from tests.pipelines import build

ALL = ("vae", "text_encoder", "unet")


@pytest.fixture(scope="module")
def sd15() -> Facts:
    return facts_of(build("sd15"))


def test_refuses_a_part_of_the_pipeline(sd15: Facts) -> None:
    assert "vae, unet would be left out" in (SequentialOffload(("text_encoder",)).refuses(Run(sd15)) or "")


def test_refuses_what_reads_weights_directly_where_it_is_called(sd15: Facts) -> None:
    model, trace = sd15.model, sd15.trace
    head = replace(model.component("text_encoder"), lacks=(("leaf_level:head", "its head reads weights directly"),))
    facts = replace(sd15, model=replace(model, components=(model.component("vae"), head, model.component("unet"))))
    assert SequentialOffload(ALL).refuses(Run(facts)) is None
    elsewhere = replace(trace.calls[0], component="unet", modules=("", "head"))
    assert SequentialOffload(ALL).refuses(Run(replace(facts, trace=replace(trace, calls=(elsewhere,))))) is None
    here = replace(elsewhere, component="text_encoder")
    broken = Run(replace(facts, trace=replace(trace, calls=(elsewhere, here))))
    assert SequentialOffload(ALL).refuses(broken) == "its head reads weights directly"


def test_what_the_class_never_offloads_stays(sd15: Facts) -> None:
    facts = replace(sd15, model=replace(sd15.model, never_sequential=("vae",)))
    run = SequentialOffload(ALL).redraw(Run(facts))
    assert [run.placement(name) for name in ALL] == [Resident(), InGroups(SEQUENTIAL), InGroups(SEQUENTIAL)]


@pytest.mark.parametrize("family", ["sd3", "wan"])
def test_what_stays_on_the_device_are_buffers(family: str) -> None:
    """SD3's root owns no parameter, so its position table stays; Wan's does, but its rotary table is never saved."""
    component = facts_of(build(family)).model.component("transformer")
    buffers = sum(weight.nbytes for weight in component.weights if weight.buffer)
    assert outside(component, InGroups(SEQUENTIAL), Stored()) == buffers > 0


def test_nothing_is_copied_back(sd15: Facts) -> None:
    bill, resident = simulate(SequentialOffload(ALL).redraw(Run(sd15))), simulate(Run(sd15))
    assert (bill.traffic.to_host, bill.host.pinned) == (0, 0)
    assert bill.host.steady - resident.host.steady == sd15.model.size


def test_the_same_tensors_come_back() -> None:
    pipe = build("flux")
    before = {name: id(weight) for name, weight in pipe.text_encoder_2.named_parameters(remove_duplicate=False)}
    names = tuple(name for name, part in pipe.components.items() if isinstance(part, torch.nn.Module))
    undo = SequentialOffload(names).apply(pipe, "cpu")
    assert {weight.device.type for weight in pipe.text_encoder_2.parameters()} == {"meta"}
    undo()
    assert {n: id(w) for n, w in pipe.text_encoder_2.named_parameters(remove_duplicate=False)} == before


def test_a_pipeline_that_is_offloaded_already_is_refused() -> None:
    pipe = build("sd15")
    ModelOffload(ALL).apply(pipe, "cpu")
    with pytest.raises(BadInput, match="remove_all_hooks"):
        SequentialOffload(ALL).apply(pipe, "cpu")
