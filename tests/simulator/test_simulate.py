"""The arithmetic of a bill, on a run small enough to be summed by hand."""

from dataclasses import replace

import pytest

from memplan.facts import GIB, MIB, Call, Component, Facts, Gpu, Host, Machine, Model, Ops, Segment, Step, Trace, Weight
from memplan.run import InGroups, OnCall, OnHost, Run, Stored
from memplan.simulator import Peak, simulate
from memplan.simulator.device import blas_workspace, context

TEXT, NET, VAE = 1000, 4000, 500
"""Bytes of the three components."""


def component(name: str, size: int) -> Component:
    weights = (Weight("leaf.weight", size // 4, "float32"),)
    return Component(name, name.title(), "diffusers", "float32", weights, cast=(0,))


def call(
    name: str, phase: str, base: int, peak: int, *, method: str = "forward", variant: tuple[str, ...] = ()
) -> Call:
    middle = Segment(enters=(0,), leaves=(0,), live=10, peak=peak, op=1, work=(Ops("matmul", "float32", 1, 7, 9),))
    first = Segment(enters=(), leaves=(), live=0, peak=10, op=0)
    return Call(name, method, phase, base, ("leaf",), ("aten.add", "aten.mm"), (first, middle), variant)


@pytest.fixture
def run() -> Run:
    calls = (
        call("text", "text encoding", base=0, peak=100),
        call("", "denoising", base=50, peak=30),
        call("net", "denoising", base=50, peak=300),
        call("vae", "decoding", base=60, peak=2000, method="decode"),
    )
    timeline = (Step(0, 1), Step(1, 1), Step(2, 28), Step(1, 1), Step(3, 1))
    tiled = (call("vae", "decoding", base=0, peak=200, method="decode", variant=("tiled",)),)
    parts = (component("text", TEXT), component("net", NET), component("vae", VAE))
    model = Model("m", "M", parts, offload_order=("text", "net", "vae"))
    machine = Machine(None, Host(GIB, GIB))
    return Run(Facts(machine, model, Trace("cpu", calls, timeline, tiled)))


def on_call(run: Run) -> Run:
    for name in ("text", "net", "vae"):
        run = run.place(name, OnCall())
    return run


def decoding(run: Run) -> Peak:
    return next(p for p in simulate(run).peaks if p.phase == "decoding")


def allocated(run: Run) -> dict[tuple[str, str], int]:
    return {(p.phase, p.component): p.memory.allocated for p in simulate(run).peaks}


def with_gpu(run: Run, gpu: Gpu) -> Run:
    return replace(run, facts=replace(run.facts, machine=replace(run.facts.machine, gpu=gpu)))


# ---- device memory --------------------------------------------------------------------------------------------------
def test_everything_resident_is_all_weights_and_each_peak(run: Run) -> None:
    weights = TEXT + NET + VAE
    assert allocated(run) == {
        ("text encoding", "text"): weights + 100,
        ("denoising", ""): weights + 50 + 30,
        ("denoising", "net"): weights + 50 + 300,
        ("decoding", "vae"): weights + 60 + 2000,
    }


def test_a_peak_says_what_it_is_made_of(run: Run) -> None:
    peak = decoding(run)
    assert (peak.component, peak.module, peak.op) == ("vae", "leaf", "aten.mm")
    assert (peak.weights, peak.copies, peak.activations) == (TEXT + NET + VAE, 0, 2060)
    assert peak.memory.allocated == peak.weights + peak.copies + peak.activations


def test_components_on_call_come_alone(run: Run) -> None:
    assert allocated(on_call(run)) == {
        ("text encoding", "text"): TEXT + 100,
        ("denoising", ""): NET + 50 + 30,  # between two steps: the denoiser stays
        ("denoising", "net"): NET + 50 + 300,
        ("decoding", "vae"): VAE + 60 + 2000,
    }


def test_a_variant_replaces_the_call(run: Run) -> None:
    assert allocated(run.vary("vae", "tiled"))["decoding", "vae"] == TEXT + NET + VAE + 200


def test_two_ways_are_one_call_and_a_way_that_changes_nothing_is_left_out(run: Run) -> None:
    sliced, both = (
        call("vae", "decoding", base=0, peak=p, method="decode", variant=v)
        for p, v in ((500, ("sliced",)), (100, ("sliced", "tiled")))
    )
    trace = replace(run.facts.trace, alternatives=(*run.facts.trace.alternatives, sliced, both))
    run = replace(run, facts=replace(run.facts, trace=trace))
    assert allocated(run.vary("vae", "sliced").vary("vae", "tiled"))["decoding", "vae"] == TEXT + NET + VAE + 100
    assert allocated(run.vary("vae", "sliced").vary("vae", "other"))["decoding", "vae"] == TEXT + NET + VAE + 500


def test_a_variant_that_does_not_exist_changes_nothing(run: Run) -> None:
    assert allocated(run.vary("net", "tiled")) == allocated(run)


def test_casting_stores_a_quarter_and_copies_a_leaf_while_it_runs(run: Run) -> None:
    peaks = allocated(run.store("net", Stored("float8_e4m3fn")))
    assert peaks["text encoding", "text"] == TEXT + NET // 4 + VAE + 100
    making = NET // 4 + NET + 10  # both copies, and what was live before
    assert peaks["denoising", "net"] == TEXT + VAE + making + 50


@pytest.mark.parametrize(
    ("gpu", "workspace"),
    [
        (Gpu("H100", GIB, GIB, capability=(9, 0)), 32 * MIB),
        (Gpu("B200", GIB, GIB, capability=(10, 0)), 32 * MIB),
        (Gpu("A100", GIB, GIB, capability=(8, 0)), 8 * MIB + 128 * 1024),
        (Gpu("RTX 5090", GIB, GIB, capability=(12, 0)), 32 * MIB),
        (Gpu("RX 7900 XTX", GIB, GIB, kind="rocm", arch="gfx1100"), 32 * MIB),
        (Gpu("RX 9070", GIB, GIB, kind="rocm", arch="gfx1201"), (32 + 76) * MIB),
        (Gpu("MI300X", GIB, GIB, kind="rocm", arch="gfx942"), (128 + 76) * MIB),
        (Gpu("B580", GIB, GIB, kind="xpu"), 0),
        (Gpu("M4", GIB, GIB, kind="mps"), 0),
        (None, 0),
    ],
)
def test_the_libraries_take_their_share(run: Run, gpu: Gpu | None, workspace: int) -> None:
    assert blas_workspace(gpu) == workspace
    if gpu is not None:
        plain, here = decoding(run).memory, decoding(with_gpu(run, gpu)).memory
        assert here.allocated == plain.allocated + workspace
        assert here.required == plain.required + workspace + context(gpu)


# ---- what moves -----------------------------------------------------------------------------------------------------
def test_nothing_moves_while_everything_is_resident(run: Run) -> None:
    assert simulate(run).traffic.link == 0


def test_a_component_on_call_crosses_the_link_once_each_way(run: Run) -> None:
    traffic = simulate(on_call(run)).traffic
    assert traffic.to_device == traffic.to_host == TEXT + NET + VAE


def test_casts_are_paid_at_each_step(run: Run) -> None:
    traffic = simulate(run.store("net", Stored("float8_e4m3fn"))).traffic
    assert traffic.cast == 28 * 2 * (NET // 4 + NET)


def test_a_component_without_groups_does_not_move(run: Run) -> None:
    assert simulate(run.place("net", InGroups("leaf_level"))).traffic.link == 0


def test_a_bill_is_the_same_each_time(run: Run) -> None:
    assert simulate(on_call(run)) == simulate(on_call(run))


def with_pictures(run: Run, held: int) -> Run:
    """The pipeline's own code holds so much in host memory."""
    trace = run.facts.trace
    calls = tuple(c if c.component else replace(c, host=held) for c in trace.calls)
    return replace(run, facts=replace(run.facts, trace=replace(trace, calls=calls)))


def test_pictures_are_in_host_memory_while_they_are_made(run: Run) -> None:
    before, after = simulate(run), simulate(with_pictures(run, 10_000))
    (own,) = (peak.host for peak in after.peaks if not peak.component)
    assert own - before.host.steady == 10_000
    assert after.host == replace(before.host, peak=before.host.steady + 10_000)
    assert all(peak.host == before.host.steady for peak in after.peaks if peak.component)


def test_what_computes_on_the_cpu_holds_its_activations_there(run: Run) -> None:
    before, after = simulate(run), simulate(run.place("net", OnHost()))
    here, there = (next(p for p in bill.peaks if p.component == "net") for bill in (before, after))
    assert (here.weights, here.activations) == (TEXT + NET + VAE, 350)
    assert (there.weights, there.copies, there.activations) == (TEXT + VAE, 0, 50)
    assert there.host - before.host.steady == NET + 300
    assert after.host.peak == there.host == after.host.steady + 300
    assert (after.host_flops, before.host_flops) == (28 * 7, 0)
