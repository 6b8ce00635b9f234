"""The seconds of one call, on clocks small enough to be followed by hand."""

from dataclasses import replace

import pytest

from memplan.facts import Call, Component, Group, Grouping, Ops, Rates, Segment, Weight
from memplan.run import FromDisk, InGroups, OnHost, Partly, Placement, Resident, Stored
from memplan.simulator.seconds import seconds

RATES = Rates(
    compute=(("matmul", "float32", 100.0),),
    bandwidth=1000.0,
    eager=1.0,
    kernel=0.0,
    launch=0.0,
    hook=0.0,
    dispatch=0.0,
    pinned=50.0,
    to_device=20.0,
    to_host=10.0,
    pinning=25.0,
    disk=5.0,
    host=10.0,
)
"""FLOP/s and bytes/s that give round figures."""
LOADED = Stored()
BLOCKS = ("one", "two", "three")
SIZE = 100
"""Bytes of each block's weight: 2 s from pinned memory, 5 s from other memory, 10 s back, 20 s from disk."""


def grouped() -> Component:
    """Three blocks, each a group of its own."""
    weights = tuple(Weight(f"{block}.w", SIZE // 4, "float32") for block in BLOCKS)
    groups = tuple(Group(block, block, (i,), streamed=True) for i, block in enumerate(BLOCKS))
    return Component("net", "Net", "diffusers", "float32", weights, (Grouping("leaf_level", None, groups),), cast=(0,))


def forward(flops: int, traffic: int = 0, count: int = 1) -> Call:
    """One op in each of three blocks, one after the other."""
    work = (Ops("matmul", "float32", count, flops, traffic),)
    segments = tuple(Segment((i,), (i,), live=0, peak=1, op=0, work=work) for i in range(3))
    return Call("net", "forward", "", 0, BLOCKS, ("mm",), segments)


def taken(placement: Placement, call: Call, stored: Stored = LOADED, rates: Rates = RATES) -> float:
    return seconds(grouped(), placement, stored, call, rates)


# ---- the roofline ----------------------------------------------------------------------------------------------------
def test_the_slower_of_computing_and_reading_counts() -> None:
    assert taken(Resident(), forward(flops=200, traffic=100)) == pytest.approx(3 * 2.0)
    assert taken(Resident(), forward(flops=200, traffic=4000)) == pytest.approx(3 * 4.0)


def test_an_unknown_dtype_has_the_fallback() -> None:
    assert replace(RATES, fallback=7.0).flops("matmul", "float8_e5m2") == 7.0


def test_small_ops_last_as_long_as_the_host_issues_them() -> None:
    rates = replace(RATES, launch=0.5)
    assert taken(Resident(), forward(flops=1, count=10), rates=rates) == pytest.approx(3 * 10 * 0.5)
    assert taken(Resident(), forward(flops=10_000, count=10), rates=rates) == pytest.approx(300.0 + 0.5)


def test_repetitions_take_their_time() -> None:
    call = forward(flops=200)
    thrice = replace(call, segments=tuple(replace(s, repeat=3) for s in call.segments))
    assert taken(Resident(), thrice) == pytest.approx(3 * taken(Resident(), call))


# ---- groups ----------------------------------------------------------------------------------------------------------
def test_without_a_stream_everything_is_waited_for() -> None:
    assert taken(InGroups("leaf_level"), forward(flops=100)) == pytest.approx(3 * (5 + 1 + 10))


def test_each_tensor_takes_the_host_s_time() -> None:
    rates = replace(RATES, hook=0.25)
    assert taken(InGroups("leaf_level"), forward(flops=100), rates=rates) == pytest.approx(3 * (0.25 + 5 + 1 + 10))


def test_from_disk_nothing_goes_back() -> None:
    assert taken(FromDisk("leaf_level"), forward(flops=100)) == pytest.approx(3 * (20 + 1))


def test_a_stream_hides_the_shorter_of_copy_and_compute() -> None:
    """The first copy and the last block's work hide behind nothing."""
    streamed = InGroups("leaf_level", stream=True)
    assert taken(streamed, forward(flops=500)) == pytest.approx(2 + 3 * 5)
    assert taken(streamed, forward(flops=100)) == pytest.approx(3 * 2 + 1)


def test_pinning_anew_keeps_the_host_from_issuing_work() -> None:
    """Each block is pinned in 4 s, and the work of the block before it begins only then."""
    pinned_anew = InGroups("leaf_level", stream=True, low_cpu_mem=True)
    assert taken(pinned_anew, forward(flops=100)) == pytest.approx((4 + 2) + (4 + 2) + (4 + 2) + 1)


def test_casts_take_device_memory_s_time() -> None:
    """One of three weights is cast: 25 bytes and 100 are read and written."""
    cast = taken(Resident(), forward(flops=100), Stored("float8_e4m3fn"))
    assert cast - taken(Resident(), forward(flops=100)) == pytest.approx(2 * (25 + 100) / 1000)


def test_the_cpu_computes_at_its_own_rate() -> None:
    assert taken(OnHost(), forward(flops=100)) == pytest.approx(30.0)
    for dtype, expected in (("float32", 60.0), ("bfloat16", 30.0)):
        rates = replace(RATES, on_host=(("matmul", dtype, 5.0), ("attention", "float32", 1.0)))
        assert taken(OnHost(), forward(flops=100), rates=rates) == pytest.approx(expected), dtype


# ---- slots -----------------------------------------------------------------------------------------------------------
def test_in_slots_only_what_is_streamed_is_copied_and_it_hides() -> None:
    """512 bytes each, as tensors in slots are aligned: 10.24 s. Of three, `streamed` of one is the last."""
    assert taken(Partly("leaf_level", 1), forward(flops=600)) == pytest.approx(18)
    assert taken(Partly("leaf_level", 1), forward(flops=400)) == pytest.approx(10.24 + 4)


def test_the_third_copy_waits_for_the_slot_of_the_first_block() -> None:
    """Blocks of 20 s: the first two copies are there after 20.48 s, the third begins when the first block is done."""
    assert taken(Partly("leaf_level", 3), forward(flops=2000)) == pytest.approx(10.24 + 3 * 20)
    assert taken(Partly("leaf_level", 3), forward(flops=100)) == pytest.approx(3 * 10.24 + 1)


def test_a_copy_into_a_slot_in_use_waits_while_the_link_is_idle() -> None:
    fast = replace(RATES, pinned=512.0)
    assert taken(Partly("leaf_level", 3), forward(flops=2000), rates=fast) == pytest.approx(1 + 3 * 20)
