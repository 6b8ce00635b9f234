"""What the simulator says is on the device at each moment is what the libraries' own hooks hold there, to the byte.

It says what holds from a component's second forward on: in the first, diffusers learns what to copy ahead.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from typing import Any

import pytest
import torch

from memplan.facts import Facts
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.run import Run
from memplan.strategies import STRATEGIES, GroupOffload, OnGpu
from memplan.strategy import Decision, Strategy
from tests.conformance.device import Device, streams
from tests.conformance.watch import Held, Moments, drawn, watched
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.some import some
from tests.test_strategy_laws import attributes, picture

FAMILIES = ("flux", "sdxl", "sd3", "wan22", "cogvideox", "ltx")


# ---- what lives -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Subject:
    """A family's pipeline, its facts, and its picture with everything in host memory."""

    family: str
    pipe: Any
    facts: Facts
    expected: torch.Tensor


@cache
def subject(family: str) -> Subject:
    pipe = build(family)
    twin = open_pipeline(pipe)
    facts = replace(facts_of(pipe), model=measure(twin.pipe), trace=dry_run(twin, inputs(family)))
    return Subject(family, pipe, facts, picture(pipe, family))


def lived(known: Subject, plan: Sequence[Strategy], calls: int) -> list[list[Moments]]:
    """The moments of as many calls of the pipeline under `plan`, each of which must give the same picture."""
    device = Device(known.pipe)
    found: list[list[Moments]] = []
    with ExitStack() as undos:
        undos.enter_context(device)
        undos.enter_context(streams())
        for strategy in plan:
            undos.callback(strategy.apply(known.pipe, "cuda"))
        for _ in range(calls):
            with watched(known.pipe, device) as seen:
                output = picture(known.pipe, known.family).cpu()
            found.append([moments for moments in seen if moments.component])
            assert torch.equal(output, known.expected)
    assert not any(device.held.values())
    return found


# ---- what is said ---------------------------------------------------------------------------------------------------
def plans(facts: Facts) -> Iterator[tuple[Strategy, ...]]:
    """Every variant that places something, in as few plans as hold them all; what is not placed is on the device."""
    found = [s for cls in STRATEGIES for s in cls.variants(facts) if places(s)]
    yield from ((s,) for s in found if len(s.seats) > 1)
    names = [component.name for component in facts.model.components]
    own = [[s for s in found if {seat.component for seat in s.seats} == {name}] for name in names]
    for row in zip_longest(*own):
        yield tuple(s or OnGpu(name) for s, name in zip(row, names, strict=True))


def places(strategy: Strategy) -> bool:
    return {seat.decision for seat in strategy.seats} == {Decision.PLACEMENT}


def said(facts: Facts, plan: Sequence[Strategy]) -> list[tuple[Moments, bool]]:
    run = Run(facts)
    for strategy in plan:
        assert strategy.refuses(run) is None
        run = strategy.redraw(run)
    return [(moments, repeated) for moments, repeated in drawn(run) if moments.component]


def compare(real: Moments, picture: Moments, repeated: bool) -> None:
    """Boundary by boundary; where parts of the call stand for several, as a set."""
    if repeated:
        assert everything(real) <= everything(picture)
    else:
        assert [path for path, _ in real.after] == [path for path, _ in picture.after]
        for (path, held), (_, drawn_here) in zip(real.after, picture.after, strict=True):
            assert held <= drawn_here, f"after {path}"
    assert highest(real) == highest(picture)


def everything(moments: Moments) -> set[tuple[str, Held]]:
    return {(path, held) for path, found in moments.after for held in found}


def highest(moments: Moments) -> int:
    return max(own for _, found in moments.after for own, _ in found)


# ---- the tests ------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("family", some(FAMILIES, "sd3", "wan22"))
def test_what_is_held_is_what_was_said(family: str) -> None:
    known = subject(family)
    before = attributes(known.pipe)
    for plan in plans(known.facts):
        _, steady = lived(known, plan, calls=2)
        drawing = said(known.facts, plan)
        assert [(m.component, m.method) for m in steady] == [(m.component, m.method) for m, _ in drawing], plan
        for real, (picture_of_it, repeated) in zip(steady, drawing, strict=True):
            compare(real, picture_of_it, repeated)
        assert attributes(known.pipe) == before, plan
    assert torch.equal(picture(known.pipe, family), known.expected)


@pytest.mark.slow
@pytest.mark.parametrize("level", [("leaf_level", None), ("block_level", 1)])
def test_the_first_streamed_forward_holds_one_group_less(level: tuple[str, int | None]) -> None:
    """While the library learns the order of the groups it copies none ahead, so the picture bounds the first one."""
    known = subject("flux")
    plan = [OnGpu(c.name) for c in known.facts.model.components if c.name != "transformer"]
    streamed = GroupOffload("transformer", *level, stream=True)
    (first,) = lived(known, [*plan, streamed], calls=1)
    forwards = [highest(moments) for moments in first if moments.component == "transformer"]
    (expected,) = {highest(m) for m, _ in said(known.facts, [*plan, streamed]) if m.component == "transformer"}
    assert forwards[0] < expected
    assert set(forwards[1:]) == {expected}


def test_a_weight_left_in_host_memory_is_noticed() -> None:
    """The device is one: what is on it does not compute with what is not."""
    pipe = build("flux")
    with Device(pipe) as device:
        pipe.to("cuda")
        pipe.transformer.x_embedder.to("cpu")
        assert device.held["transformer"] == sum(t.nbytes for t in pipe.transformer.parameters()) - sum(
            t.nbytes for t in pipe.transformer.x_embedder.parameters()
        )
        with pytest.raises(RuntimeError, match="on one device"):
            picture(pipe, "flux")
