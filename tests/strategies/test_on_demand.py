"""What only components on demand know: who drops them, what they take of the host, and what becomes of changes."""

from dataclasses import replace
from functools import reduce
from typing import Any

import pytest
import torch

from memplan.facts import GIB, Facts
from memplan.run import OnCall, Run, Stored
from memplan.run import OnDemand as Placement
from memplan.simulator import simulate
from memplan.simulator.chain import Chain
from memplan.simulator.host import LIBRARIES
from memplan.strategies import OnCpu, OnDemand
from tests.conformance.device import Device, scarce
from tests.faces import small
from tests.pipelines import build
from tests.pipelines.loras import with_lora
from tests.test_strategy_laws import attributes, picture

NAMES = ("text_encoder", "transformer", "vae")


def drawn(facts: Facts, *names: str) -> Run:
    return reduce(lambda run, name: run.place(name, Placement()), names, Run(facts))


# ---- who is there ----------------------------------------------------------------------------------------------------
def test_a_component_stays_until_another_one_is_called() -> None:
    chain = Chain.of(drawn(small.facts(), *NAMES))
    assert chain.here == {"vae"}  # left by the call before
    turns = [(name, chain.call(name), set(chain.here)) for name in ("", "text_encoder", "", "transformer", "vae")]
    assert [here for _, _, here in turns] == [{"vae"}, {"text_encoder"}, {"text_encoder"}, {"transformer"}, {"vae"}]
    assert chain.arrivals == ["text_encoder", "transformer", "vae"]
    assert (chain.departures, chain.finish()) == ([], [])


def test_a_method_that_no_hook_sees_drops_nothing() -> None:
    chain = Chain.of(drawn(small.facts(), "text_encoder"))
    chain.call("text_encoder")
    chain.call("transformer", "embed")
    assert chain.here == {"text_encoder"}


# ---- what it costs ---------------------------------------------------------------------------------------------------
def test_nothing_is_copied_back_but_read_over_twice() -> None:
    facts = small.facts()
    bill = simulate(drawn(facts, *NAMES))
    assert (bill.traffic.to_device, bill.traffic.to_host) == (facts.model.size, 0)
    offloaded = simulate(reduce(lambda run, name: run.place(name, OnCall()), NAMES, Run(facts)))
    back, over = facts.model.size / facts.machine.rates.to_host, 2 * facts.model.size / facts.machine.rates.bandwidth
    assert offloaded.seconds - bill.seconds == pytest.approx(back - over)
    assert bill.peak.memory == offloaded.peak.memory


def test_what_lies_in_files_takes_no_host_memory_and_what_was_made_does() -> None:
    facts = small.facts()
    run = drawn(facts, "transformer")
    assert simulate(run).host.steady == LIBRARIES
    cast = run.store("transformer", Stored("float8_e4m3fn"))
    assert simulate(cast).host.steady == LIBRARIES + facts.model.component("transformer").size // 2
    parts = tuple(replace(part, mapped=False) for part in facts.model.components)
    made = replace(facts, model=replace(facts.model, components=parts))
    assert simulate(drawn(made, "transformer")).host.steady == LIBRARIES + made.model.component("transformer").size


def test_files_that_find_no_room_in_host_memory_are_read_each_time() -> None:
    seconds = [simulate(drawn(small.facts(ram=ram), *NAMES)).seconds for ram in (32, 4)]
    rates, size = small.facts().machine.rates, small.facts().model.size
    assert size > 4 * GIB
    assert seconds[1] - seconds[0] == pytest.approx(size / rates.disk - size / rates.to_device)


# ---- refusals --------------------------------------------------------------------------------------------------------
def test_what_computes_on_the_cpu_leaves_nothing_by_which_to_find_the_device() -> None:
    facts = small.facts()
    facts = replace(facts, trace=replace(facts.trace, host_side=(("text_encoder",),)))
    run = OnCpu("text_encoder").redraw(Run(facts))
    assert (OnDemand("transformer").refuses(run) or "").startswith("text_encoder computes on the CPU")


def test_a_component_that_is_called_alone_would_never_leave() -> None:
    facts = small.facts()
    only = tuple(call for call in facts.trace.calls if call.component == "transformer")
    facts = replace(facts, trace=replace(facts.trace, calls=only, timeline=facts.trace.timeline[:1]))
    assert "never leave" in (OnDemand("transformer").refuses(Run(facts)) or "")


# ---- on a real pipeline ----------------------------------------------------------------------------------------------
@pytest.fixture
def lent() -> Any:
    """FLUX, its transformer and first text encoder on demand, after a call."""
    pipe = build("flux")
    with Device(pipe) as device:
        pipe.vae.to("cuda")
        pipe.text_encoder_2.to("cuda")
        undo = [OnDemand(name).apply(pipe, "cuda") for name in ("text_encoder", "transformer")]
        yield pipe, device, undo


def test_the_pipeline_computes_on_the_device_and_weights_come_home(lent: Any) -> None:
    pipe, device, undo = lent
    weight = pipe.transformer.x_embedder.weight
    pipe.text_encoder(torch.zeros(1, 4, dtype=torch.long).to("cuda"))
    home = weight.data
    assert not device.has(home)
    picture(pipe, "flux")
    assert pipe._execution_device.type == "cuda"
    pipe.transformer._hf_hook.leave()
    assert weight.data.data_ptr() == home.data_ptr()
    for way in reversed(undo):
        way()
    assert not device.held["transformer"]
    assert not device.held["text_encoder"]


def test_what_was_changed_meanwhile_goes_home_changed(lent: Any) -> None:
    pipe, device, _ = lent
    visitor, weight = pipe.transformer._hf_hook, pipe.transformer.x_embedder.weight
    visitor.come()
    with torch.no_grad():
        weight.add_(1)
    expected = weight.detach().clone()
    visitor.leave()
    assert not device.has(weight)
    assert torch.equal(weight.cpu(), expected.cpu())


@pytest.mark.parametrize("kept", [True, False])
def test_a_lora_that_is_fused_on_the_device_stays_fused(kept: bool) -> None:
    pipe = with_lora(build("flux"))
    with Device(pipe) as device:
        pipe.vae.to("cuda")
        undo = [OnDemand(name).apply(pipe, "cuda") for name in ("text_encoder", "text_encoder_2", "transformer")]
        weight = pipe.transformer.transformer_blocks[0].attn.to_q.base_layer.weight
        plain = weight.detach().cpu().clone()
        assert device.has(weight)
        version = weight._version
        pipe.transformer.fuse_lora()
        assert weight._version == version  # so that does not tell it
        if not kept:
            pipe.transformer.unload_lora()
        fused = weight.detach().cpu().clone()
        picture(pipe, "flux")
        assert not device.has(weight)
        assert torch.equal(weight.cpu(), fused)
        assert not torch.equal(fused, plain)
        for way in reversed(undo):
            way()
    assert torch.equal(weight, fused)


def test_one_element_that_is_written_goes_home_and_the_rest_stays_where_it_was(lent: Any) -> None:
    pipe, _, _ = lent
    visitor, layer = pipe.transformer._hf_hook, pipe.transformer.x_embedder
    visitor.leave()
    homes = layer.weight.data_ptr(), layer.bias.data_ptr()
    visitor.come()
    layer.weight.data[1, 2] = 7
    visitor.leave()
    assert layer.weight[1, 2] == 7
    assert (layer.weight.data_ptr() == homes[0], layer.bias.data_ptr() == homes[1]) == (False, True)


def test_where_memory_ends_half_way_nothing_is_left_behind() -> None:
    pipe = build("flux")
    before = attributes(pipe)
    with scarce(pipe) as device:
        with pytest.raises(torch.OutOfMemoryError):
            OnDemand("transformer").apply(pipe, "cuda")
        assert not device.held["transformer"]
    assert attributes(pipe) == before


def test_what_was_added_since_comes_too(lent: Any) -> None:
    pipe, device, _ = lent
    visitor = pipe.transformer._hf_hook
    visitor.leave()
    pipe.transformer.x_embedder.register_parameter("late", torch.nn.Parameter(torch.zeros(3)))
    visitor.come()
    assert device.has(pipe.transformer.x_embedder.late)
    visitor.leave()
    assert not device.has(pipe.transformer.x_embedder.late)
