"""Seconds that are spent once, on rates small enough to be followed by hand, and as the bill has them."""

from dataclasses import replace
from typing import Any

import pytest

from memplan.faces.api import named
from memplan.faces.report.bill import bill as shown
from memplan.run import (
    Aside,
    FromDisk,
    InGroups,
    OnCall,
    OnDemand,
    OnHost,
    Partly,
    Placement,
    Resident,
    Run,
    Stored,
)
from memplan.simulator import simulate
from memplan.simulator.seconds import seconds
from memplan.simulator.starting import Site, once
from memplan.simulator.weights import total
from tests.faces import small
from tests.simulator.test_seconds import BLOCKS, LOADED, RATES, SIZE, forward, grouped

TOTAL = len(BLOCKS) * SIZE
HERE = Site(RATES, files=True, link=True)
DISK, PINNED, COMES, BACK = TOTAL / 5, TOTAL / 25, TOTAL / 20, TOTAL / 10
"""Seconds of all three blocks: from the disk, into pinned memory, to the device, and back."""


def spent(placement: Placement, site: Site = HERE, stored: Stored = LOADED, **changes: Any) -> tuple[float, float]:
    one = once(replace(grouped(), **changes), placement, stored, site)
    return one.before, one.beside


@pytest.mark.parametrize(
    ("placement", "before", "beside"),
    [
        (Resident(), DISK, 0),
        (OnDemand(), DISK, 0),
        (Aside(), 0, 0),
        (OnCall(), 0, DISK - COMES),
        (OnHost(), 0, DISK),
        (InGroups("leaf_level"), 0, DISK - COMES),
        (InGroups("leaf_level", stream=True), DISK, 0),
        (InGroups("leaf_level", stream=True, low_cpu_mem=True), 0, DISK - PINNED),
        (Partly("leaf_level", 2), DISK, 0),
    ],
)
def test_files_are_read_when_their_weights_are_first_touched(
    placement: Placement, before: float, beside: float
) -> None:
    assert spent(placement) == pytest.approx((before, beside))


@pytest.mark.parametrize(
    ("placement", "before"),
    [
        (Resident(), COMES),
        (OnCall(), 0),
        (InGroups("leaf_level", stream=True), PINNED),
        (Partly("leaf_level", 2), PINNED * 2 / 3 + COMES / 3),
    ],
)
def test_of_what_is_in_memory_no_file_is_read(placement: Placement, before: float) -> None:
    assert spent(placement, replace(HERE, files=False)) == pytest.approx((before, 0))


def test_weights_of_another_dtype_are_read_as_they_are_loaded() -> None:
    assert spent(OnCall(), mapped=False) == (DISK, 0)
    assert spent(Resident(), mapped=False) == pytest.approx((DISK + COMES, 0))


def test_a_quantizers_weights_go_to_the_device_and_back_before_they_are_placed() -> None:
    part = replace(grouped(), weights=tuple(replace(w, columns=5) for w in grouped().weights))
    stored, site = Stored("int8"), replace(HERE, files=False)
    assert total(part, stored) < TOTAL
    back, again = total(part, stored) / RATES.to_host, total(part, stored) / RATES.to_device
    assert once(part, OnCall(), stored, site).before == pytest.approx(COMES + back)
    assert once(part, Resident(), stored, site).before == pytest.approx(COMES + back + again)
    assert once(part, OnCall(), stored, HERE).before == pytest.approx(DISK + back)


def test_casts_read_their_weights() -> None:
    assert spent(OnCall(), stored=Stored("float8_e4m3fn"))[0] == DISK / 3  # one of the three is cast


def test_what_is_on_the_device_has_nowhere_to_come_from() -> None:
    assert spent(Resident(), on_device=True) == (0, 0)
    assert spent(OnCall(), on_device=True) == pytest.approx((BACK, 0))


def test_to_the_cpu_nothing_crosses_a_link() -> None:
    assert spent(Resident(), replace(HERE, link=False)) == (0, DISK)


def test_files_that_offload_writes_are_read_from_first() -> None:
    assert spent(FromDisk("leaf_level")) == (DISK, 0)


# ---- the bill --------------------------------------------------------------------------------------------------------
def drawn(**placements: Placement) -> Run:
    run = Run(small.facts())
    for name, placement in placements.items():
        run = run.place(name, placement)
    return run


def test_everything_on_the_device_is_read_once() -> None:
    facts = small.facts()
    bill = simulate(Run(facts))
    assert bill.loading is not None
    assert bill.loading.seconds == pytest.approx(facts.model.size / facts.machine.rates.disk)
    assert (bill.fetching, bill.first) == (0, bill.seconds)


def test_model_offload_reads_in_the_first_call_what_it_calls() -> None:
    facts = small.facts()
    bill = simulate(drawn(text_encoder=OnCall(), transformer=OnCall(), vae=OnCall()))
    late = facts.model.size * (1 / facts.machine.rates.disk - 1 / facts.machine.rates.to_device)
    assert bill.loading is not None
    assert bill.loading.seconds == 0
    assert bill.fetching == pytest.approx(late)
    assert bill.first == pytest.approx(bill.seconds + late)


def test_a_stream_hides_nothing_in_the_first_forward() -> None:
    placement = InGroups("leaf_level", stream=True)
    call = forward(flops=200)
    usual, first = (seconds(grouped(), placement, LOADED, call, RATES, ahead=ahead) for ahead in (True, False))
    assert first == pytest.approx(3 * (2 + 2))  # each block waits for its copy
    assert usual < first
    assert simulate(drawn(transformer=placement)).fetching > 0


def test_the_component_on_demand_that_was_hooked_last_is_there_for_the_first_call() -> None:
    rates, part = small.facts().machine.rates, small.facts().model.component("text_encoder")
    bill = simulate(drawn(text_encoder=OnDemand()))
    over = 2 * part.size / rates.bandwidth  # read for what was changed of it, when it has come and before it goes
    assert bill.fetching == pytest.approx(-part.size / rates.to_device - over)


def test_the_report_says_what_is_spent_once_and_what_it_assumes() -> None:
    text = shown(named(small.facts(), ["model_offload"]))
    assert "Loading    0.00 s before the first call, files in no cache, on a disk of 2.0 GB/s" in text
    assert "First call 6.04 s, of which 2.90 s fetch weights for the first time" in text
    cast = shown(named(small.facts(), ["layerwise_casting:transformer"]))
    assert "on a disk of 2.0 GB/s; what conversions compute is not in it" in " ".join(cast.split())
    facts = small.facts()
    live = replace(facts, model=replace(facts.model, source="live SmallPipeline"))
    seconds_of_it = facts.model.size / facts.machine.rates.to_device
    assert f"Loading    {seconds_of_it:.2f} s before the first call, all in memory" in shown(named(live, []))
