"""What is said to be on the device at each moment of a forward is what diffusers' own hooks hold there."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from diffusers.hooks import apply_group_offloading
from diffusers.hooks.group_offloading import ModuleGroup
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from memplan.facts import Call, Component, Group, Grouping, Segment, Weight
from memplan.probe.pipeline import measure
from memplan.probe.sources import open_pipeline
from memplan.probe.trace import dry_run
from memplan.run import InGroups, OnCall, Resident, Stored
from memplan.simulator.residency import Groups, height
from tests.pipelines import build, inputs

Moment = tuple[str, set[int]]
"""A module that begins ("+path") or returns ("-path"), and what ops found on the device from then on, in bytes."""
SETTINGS = (("block_level", 1), ("block_level", 2), ("leaf_level", None))
DENOISERS = (("flux", "transformer"), ("sdxl", "unet"), ("sd3", "transformer"), ("wan", "transformer"))


# ---- the real hooks -------------------------------------------------------------------------------------------------
class Watch(TorchDispatchMode):
    """Writes down the boundaries of modules with weights, and what groups hold whenever an op runs."""

    def __init__(self, root: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.paths = {id(m): path for path, m in root.named_modules() if path and weights(m)}
        self.here: dict[int, int] = {}
        self.moments: list[Moment] = [("", set())]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.moments[-1][1].add(sum(self.here.values()))
        return func(*args, **(kwargs or {}))

    def boundary(self, sign: str) -> Any:
        def note(module: torch.nn.Module, *_: Any) -> None:
            if id(module) in self.paths:
                self.moments.append((sign + self.paths[id(module)], set()))

        return note

    def move(self, group: Any, real: Any, size: int) -> None:
        self.here[id(group)] = size
        with _disable_current_modes():  # the copy itself is no op of the model
            real(group)


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def size_of(group: Any) -> int:
    tensors = [*group.parameters, *group.buffers, *(t for m in group.modules for t in weights(m))]
    return sum(t.nbytes for t in {id(t): t for t in tensors}.values())


@contextmanager
def watched(module: torch.nn.Module) -> Generator[list[Moment]]:
    """The moments of what `module`, hooked, does meanwhile."""
    watch = Watch(module)
    on, off = ModuleGroup.onload_, ModuleGroup.offload_
    handles = (
        register_module_forward_pre_hook(watch.boundary("+")),
        register_module_forward_hook(watch.boundary("-")),
    )
    try:
        with (
            patch.object(ModuleGroup, "onload_", lambda group: watch.move(group, on, size_of(group))),
            patch.object(ModuleGroup, "offload_", lambda group: watch.move(group, off, 0)),
            watch,
        ):
            yield watch.moments
    finally:
        for handle in handles:
            handle.remove()


def real_moments(family: str, name: str, level: str, blocks: int | None) -> list[Moment]:
    """The moments of the first forward of component `name` under group offload."""
    pipe = build(family)
    module: Any = getattr(pipe, name)
    cpu = torch.device("cpu")
    apply_group_offloading(module, cpu, cpu, offload_type=level, num_blocks_per_group=blocks)
    hooked = module.forward
    moments: list[Moment] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        if moments:
            return hooked(*args, **kwargs)
        with watched(module) as seen:
            result = hooked(*args, **kwargs)
        moments.extend(seen)
        return result

    module.forward = forward
    pipe(**inputs(family))
    return moments


# ---- what the simulator says ----------------------------------------------------------------------------------------
def drawn_moments(component: Component, call: Call, placement: InGroups) -> list[Moment]:
    groups = Groups(component, placement, Stored(), call)
    moments: list[Moment] = []

    def cross(sign: str, module: int, move: Callable[[str, int], None]) -> None:
        path = call.modules[module]
        move(path, 1)
        if path:
            moments.append((sign + path, {groups.resident}))
        else:
            moments[:] = moments or [("", {groups.resident})]

    for segment in call.segments:
        for module in segment.enters:
            cross("+", module, groups.enter)
        for module in segment.leaves:
            cross("-", module, groups.leave)
    return moments


@pytest.fixture(scope="module", params=DENOISERS, ids=lambda p: p[0])
def denoiser(request: pytest.FixtureRequest) -> tuple[str, Component, Call]:
    family, name = request.param
    twin = open_pipeline(build(family))
    model = measure(twin.pipe)
    trace = dry_run(twin, inputs(family))
    return family, model.component(name), next(c for c in trace.calls if c.component == name)


@pytest.mark.parametrize(("level", "blocks"), SETTINGS)
def test_groups_are_where_the_library_has_them(
    denoiser: tuple[str, Component, Call], level: str, blocks: int | None
) -> None:
    family, component, call = denoiser
    drawn = drawn_moments(component, call, InGroups(level, blocks))
    real = real_moments(family, component.name, level, blocks)
    assert [where for where, _ in drawn] == [where for where, _ in real]
    for (where, said), (_, held) in zip(drawn, real, strict=True):
        assert held <= said, f"after {where}"
    sizes = set().union(*(held for _, held in real))
    assert len(sizes) > 1
    assert 0 < max(sizes) < component.size


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
        segment = Segment(enters=(0,), leaves=(0,), live=live, peak=peak, op=0, flops=1, traffic=1)
        after = Segment(enters=(), leaves=(), live=end, peak=end, op=0, flops=0, traffic=0)
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
    segment = Segment(enters=(0,), leaves=(0,), live=0, peak=1, op=0, flops=1, traffic=1, repeat=3)
    call = Call("net", "decode", "", 0, ("leaf",), ("op",), (segment,))
    moved = height(component, InGroups("leaf_level"), Stored(), call)
    assert (moved.to_device, moved.to_host, moved.weights) == (1200, 1200, 400)
