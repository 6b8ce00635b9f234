"""What comes to the device: an allocator's figures by hand, and components that are there already."""

from dataclasses import replace

import pytest

from memplan.facts import MIB, Component, Facts
from memplan.run import OnCall, Run, Stored
from memplan.simulator import simulate
from memplan.simulator.arrivals import Device, Start, arrived
from memplan.simulator.device import context
from memplan.simulator.formats import FORMATS
from memplan.simulator.host import LIBRARIES
from memplan.simulator.loading import loading
from tests.faces import small
from tests.simulator.test_loading import INT8, LAYER, MAKING, PART, run_of

THERE = replace(PART, on_device=True)


def test_a_device_reports_what_is_there_and_the_most_that_was() -> None:
    device = Device()
    first = device.take(30 * MIB)
    second = device.take(100)
    device.give(first)
    assert device.allocated == 512
    assert device.peak == 30 * MIB + 512
    device.give(second)
    assert device.allocated == 0
    assert device.pool.reserved == 32 * MIB


def test_a_device_takes_freed_blocks_again() -> None:
    device = Device()
    device.give(device.take(36 * MIB))
    for _ in range(4):
        device.take(9 * MIB)
    assert device.pool.reserved == 36 * MIB


# ---- what is there already -------------------------------------------------------------------------------------------
def test_layers_that_are_there_are_converted_in_place() -> None:
    """The first result beside all originals, each of which goes when its result is there; the host holds nothing."""
    peak = loading(run_of(THERE).store("part", Stored("int8")))
    assert peak.memory.allocated == pytest.approx(3 * LAYER.nbytes + MAKING, abs=512)
    assert peak.weights == pytest.approx(3 * INT8, abs=3 * 1024)
    assert peak.copies == peak.memory.allocated - peak.weights
    assert peak.host == LIBRARIES


def test_the_same_from_host_memory_holds_one_layer() -> None:
    peak = loading(run_of(PART).store("part", Stored("int8")))
    assert peak.memory.allocated == LAYER.nbytes + MAKING


def test_an_original_that_is_kept_stays_there() -> None:
    peak = loading(run_of(THERE).store("part", Stored("int8", original=True)))
    assert peak.weights == pytest.approx(3 * (LAYER.nbytes + INT8), abs=3 * 1024)


def test_casts_are_made_there_too() -> None:
    part = replace(THERE, cast=(0, 1, 2))
    peak = loading(run_of(part).store("part", Stored("float8_e4m3fn")))
    assert peak.memory.allocated == 3 * LAYER.nbytes + LAYER.numel
    assert peak.weights == 3 * LAYER.numel


def test_what_leaves_asks_the_device_for_nothing_new() -> None:
    """It was there before: the plan needs only what stays."""
    run = run_of(THERE, replace(THERE, name="other")).place("part", OnCall())
    peak = loading(run)
    assert peak.memory.allocated == 2 * PART.size
    assert peak.memory.required == PART.size + context(run.facts.machine.gpu)
    assert peak.host == LIBRARIES + PART.size


def test_a_bill_takes_its_peak_there_where_loading_is_the_most() -> None:
    facts = small.facts(vram=16)
    parts = tuple(replace(part, on_device=True) for part in facts.model.components)
    there = Facts(facts.machine, replace(facts.model, components=parts), facts.trace)
    bills = [simulate(Run(each).store("transformer", Stored("float8_e4m3fn"))) for each in (facts, there)]
    assert [bill.peak.phase == "loading" for bill in bills] == [False, True]
    assert bills[1].peak.memory.allocated > facts.model.size > bills[0].peak.memory.allocated


# ---- loaders ---------------------------------------------------------------------------------------------------------
def test_bitsandbytes_loaders_bring_each_weight_and_the_others_come_as_they_are_stored() -> None:
    run = run_of(PART, replace(PART, name="other")).store("part", Stored("nf4")).store("other", Stored("int8"))
    device = arrived(run, Start.LOADER)
    nf4 = sum(FORMATS["nf4"].tensors(LAYER))
    assert device.allocated == pytest.approx(3 * (nf4 + INT8), abs=9 * 512)
    alone = arrived(run_of(PART).store("part", Stored("nf4")), Start.LOADER)
    assert alone.peak == pytest.approx(2 * nf4 + LAYER.nbytes + nf4, abs=9 * 512)
    assert alone.peak - alone.allocated == LAYER.nbytes


@pytest.mark.parametrize("form", ["int8", "nf4", "bnb int8", "float8 dynamic"])
@pytest.mark.parametrize("start", [Start.HOST, Start.DEVICE])
def test_components_by_themselves_add_up_to_all_of_them_in_one_pool(form: str, start: Start) -> None:
    wide = tuple(replace(LAYER, name=f"{n}.weight", numel=n * 1024 * 1024) for n in (1, 5, 9, 30))
    parts = [Component(name, "Part", "other", "bfloat16", wide, on_device=start is Start.DEVICE) for name in "ab"]
    run = run_of(*parts).store("a", Stored(form)).place("b", OnCall())
    device, peak = arrived(run), loading(run)
    whole = len(wide) * MIB  # up to 1 MiB of a block is not split off
    assert peak.memory.allocated == pytest.approx(device.peak, abs=whole)
    assert peak.weights == pytest.approx(device.allocated, abs=whole)
