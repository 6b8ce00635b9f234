"""What a placement holds and moves during a forward; tests/conformance holds it against the libraries' real hooks."""

import pytest

from memplan.facts import Call, Component, Group, Grouping, Ops, Segment, Weight
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.run import InGroups, OnCall, Resident, Stored
from memplan.simulator.residency import height
from tests.pipelines import build, inputs

ONCE = (Ops("matmul", "float32", 1, 1, 1),)
DENOISERS = (("flux", "transformer"), ("sdxl", "unet"))
"""Neither has buffers outside its blocks, which block level would hold twice."""


@pytest.fixture(scope="module", params=DENOISERS, ids=lambda p: p[0])
def denoiser(request: pytest.FixtureRequest) -> tuple[str, Component, Call]:
    family, name = request.param
    twin = open_pipeline(build(family))
    model = measure(twin.pipe)
    trace = dry_run(twin, inputs(family))
    return family, model.component(name), next(c for c in trace.calls if c.component == name)


def test_the_highest_moment_under_offload_is_lower_and_its_copies_are_counted(
    denoiser: tuple[str, Component, Call],
) -> None:
    _, component, call = denoiser
    whole = height(component, Resident(), Stored(), call)
    blocks = height(component, InGroups("block_level", 1), Stored(), call)
    leaves = height(component, InGroups("leaf_level"), Stored(), call)
    assert whole.weights == component.size
    assert component.size > blocks.weights > leaves.weights
    assert (whole.to_device, whole.to_host) == (0, 0)
    assert leaves.to_device == leaves.to_host
    assert blocks.to_device == blocks.to_host == component.size


def test_a_stream_brings_the_next_group_early_and_sends_nothing_back(
    denoiser: tuple[str, Component, Call],
) -> None:
    _, component, call = denoiser
    plain = height(component, InGroups("block_level", 1), Stored(), call)
    stream = height(component, InGroups("block_level", 1, stream=True), Stored(), call)
    assert plain.weights < stream.weights < component.size
    assert stream.to_host == component.unmatched


def test_on_call_and_resident_hold_the_same_while_called(denoiser: tuple[str, Component, Call]) -> None:
    _, component, call = denoiser
    assert height(component, OnCall(), Stored(), call) == height(component, Resident(), Stored(), call)


def test_a_cast_leaf_is_held_twice_only_while_it_is_cast(denoiser: tuple[str, Component, Call]) -> None:
    _, component, call = denoiser
    cast = height(component, Resident(), Stored("float8_e4m3fn"), call)
    assert cast.weights == component.cast_size
    largest = max(component.weights[i].nbytes for i in component.cast)
    assert cast.copies <= 2 * largest
    assert cast.total < height(component, Resident(), Stored(), call).total
    assert cast.cast > 0


def test_both_moments_of_a_cast_leaf_are_weighed() -> None:
    """While a leaf is cast: both copies, and its input or its output. While it runs: one copy, and all it makes."""
    component = Component("net", "Net", "diffusers", "float32", (Weight("leaf.w", 100, "float32"),), cast=(0,))

    def run(live: int, peak: int, end: int) -> tuple[int, int]:
        segment = Segment(enters=(0,), leaves=(0,), live=live, peak=peak, op=0, work=ONCE)
        after = Segment(enters=(), leaves=(), live=end, peak=end, op=0)
        call = Call("net", "forward", "", 0, ("leaf",), ("op",), (segment, after))
        moment = height(component, Resident(), Stored("float8_e4m3fn"), call)
        return moment.copies, moment.activations

    assert run(live=10, peak=50, end=5) == (400, 10)
    assert run(live=10, peak=50, end=30) == (400, 30)
    assert run(live=10, peak=500, end=30) == (300, 500)


def test_what_repeats_moves_again() -> None:
    """A segment that stands for three tiles brings its group in three times."""
    group = Group("leaf", "leaf", (0,))
    grouping = Grouping("leaf_level", None, (group,))
    component = Component("net", "Net", "diffusers", "float32", (Weight("leaf.w", 100, "float32"),), (grouping,))
    segment = Segment(enters=(0,), leaves=(0,), live=0, peak=1, op=0, work=ONCE, repeat=3)
    call = Call("net", "decode", "", 0, ("leaf",), ("op",), (segment,))
    moved = height(component, InGroups("leaf_level"), Stored(), call)
    assert (moved.to_device, moved.to_host, moved.weights) == (1200, 1200, 400)
