"""What compiled code costs: its kernels, its launches, its first call and the memory of its graphs."""

from dataclasses import replace

import pytest

from memplan.facts import ELEMENTWISE, Call, Component, Facts, Machine, Model, Ops, Segment, Step, Trace, Weight
from memplan.run import Compiled, Resident, Run, Stored
from memplan.simulator import simulate
from memplan.simulator.compiled import EACH_OP, START, graphs
from memplan.simulator.seconds import seconds
from tests.faces import small
from tests.simulator.test_seconds import RATES

MODULES = ("", "block.0", "block.1", "out")
BLOCKS = Compiled(("block.0", "block.1"))
WHOLE = Compiled(("",))


def ops(count: int, traffic: int) -> tuple[Ops, ...]:
    return (Ops(ELEMENTWISE, "float32", count, 0, traffic),)


def forward(second: int = 4000) -> Call:
    """Two blocks, of 4 ops that become 1 of a quarter of the traffic, and a layer after them, of 2 that become 1."""
    blocks = [
        Segment((0, 1), (1,), 0, 1, 0, ops(4, 4000), 1, ops(1, 1000)),
        Segment((2,), (2,), 0, 1, 0, ops(4, second), 1, ops(1, 1000)),
    ]
    return Call(
        "net",
        "forward",
        "",
        0,
        MODULES,
        ("add",),
        (*blocks, Segment((3,), (3, 0), 0, 1, 0, ops(2, 2000), 1, ops(1, 1000))),
    )


def net() -> Component:
    weights = (Weight("out.w", 4, "float32", columns=2),)
    return Component("net", "Net", "diffusers", "float32", weights, regions=("block.0", "block.1"))


def taken(compiled: Compiled | None, launch: float = 0.0, call: Call | None = None) -> float:
    rates = replace(RATES, launch=launch)
    return seconds(net(), Resident(), Stored(), call or forward(), rates, compiled=compiled)


# ---- seconds ---------------------------------------------------------------------------------------------------------
def test_only_what_is_compiled_is_fused() -> None:
    assert taken(None) == pytest.approx(4 + 4 + 2)
    assert taken(BLOCKS) == pytest.approx(1 + 1 + 2)
    assert taken(WHOLE) == pytest.approx(1 + 1 + 1)


def test_the_host_issues_a_launch_for_each_kernel_and_one_for_each_graph() -> None:
    slow = 100.0
    assert taken(None, slow) == pytest.approx(10 * slow)
    assert taken(BLOCKS, slow) == pytest.approx((1 + 1 + 2) * slow)
    assert taken(replace(BLOCKS, graphs=True), slow) == pytest.approx((1 + 1 + 2) * slow)
    assert taken(replace(WHOLE, graphs=True), slow) == pytest.approx(slow + 3)


def test_what_is_repeated_is_compiled_each_time() -> None:
    call = forward()
    thrice = replace(call, segments=tuple(replace(s, repeat=3) for s in call.segments))
    assert taken(WHOLE, call=thrice) == pytest.approx(9)


# ---- the first call --------------------------------------------------------------------------------------------------
def test_equal_blocks_are_one_graph() -> None:
    assert sorted(count for count, _ in graphs(BLOCKS, forward())) == [4]
    assert sorted(count for count, _ in graphs(BLOCKS, forward(second=5000))) == [4, 4]
    assert sorted(count for count, _ in graphs(WHOLE, forward())) == [10]


def run(compiled: Compiled | None = None) -> Run:
    call = replace(forward(), phase="denoising", reserved=10, reserved_alone=10, occupied=10, occupied_alone=10)
    machine: Machine = small.machine(8, 32)
    decode = Call("vae", "decode", "decoding", 0, ("",), ("add",), (Segment((), (), 0, 1, 0, ops(1, 1000)),))
    vae = Component("vae", "Vae", "diffusers", "float32", (Weight("w", 4, "float32"),))
    trace = Trace("cuda", (call, decode), (Step(0, 20), Step(1, 1)))
    plain = Run(Facts(machine, Model("net", "Net", (net(), vae)), trace))
    return plain.compile("net", compiled) if compiled else plain


def test_the_first_call_compiles_each_graph_once() -> None:
    assert simulate(run()).first == simulate(run()).seconds
    bill = simulate(run(WHOLE))
    assert bill.first - bill.seconds == pytest.approx(START + 10 * EACH_OP)
    assert simulate(run(BLOCKS)).compiling == pytest.approx(START + 4 * EACH_OP)


def test_graphs_keep_their_activations_beside_those_of_other_components() -> None:
    plain, graphed = (simulate(run(replace(WHOLE, graphs=flag))) for flag in (False, True))
    (denoising, decoding), (first, second) = plain.peaks, graphed.peaks
    assert first.memory == denoising.memory
    assert second.memory.required == decoding.memory.required + 10
    assert second.memory.allocated == decoding.memory.allocated
