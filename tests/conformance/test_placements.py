"""What the simulator says is on the device at each moment is what the libraries' own hooks hold there, to the byte.

It says what holds from a component's second forward on: in the first, diffusers learns what to copy ahead.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch

from memplan.facts import Facts
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.registry import parse, parse_plan
from memplan.run import Run
from memplan.strategies import (
    STRATEGIES,
    GroupOffload,
    ModelOffload,
    OnCpu,
    OnDemand,
    OnGpu,
    PartialResidency,
    SequentialOffload,
    SetAside,
)
from memplan.strategy import Decision, Strategy, in_order
from tests.conformance.device import Device, files, slots, streams
from tests.conformance.watch import Held, Moments, drawn, watched
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.pipelines.loras import ATTENTION, add, fused, with_lora
from tests.pipelines.pictures import image_encoder
from tests.some import some
from tests.test_strategy_laws import attributes, picture

FAMILIES = ("flux", "sdxl", "sd3", "wan22", "cogvideox", "ltx", "modular_flux", "modular_wan")


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
    return known_by(family, build(family))


@cache
def with_image_encoder() -> Subject:
    """FLUX with an image encoder, for which no picture is given."""
    pipe = build("flux")
    pipe.register_modules(image_encoder=image_encoder())
    return known_by("flux", pipe)


def known_by(family: str, pipe: Any) -> Subject:
    twin = open_pipeline(pipe)
    facts = replace(facts_of(pipe), model=measure(twin.pipe), trace=dry_run(twin, inputs(family)))
    return Subject(family, pipe, facts, picture(pipe, family))


def beside(facts: Facts, *own: Strategy) -> list[Strategy]:
    """The plan of `own` with everything else on the device."""
    placed = {seat.component for strategy in own for seat in strategy.seats}
    return [*own, *(OnGpu(c.name) for c in facts.model.components if c.name not in placed)]


def hold_together(known: Subject, plan: Sequence[Strategy]) -> None:
    """What is held in a second call under `plan` is what was said."""
    _, steady = lived(known, plan, calls=2)
    drawing = said(known.facts, plan)
    assert [(m.component, m.method) for m in steady] == [(m.component, m.method) for m, _ in drawing], plan
    for real, (picture_of_it, repeated) in zip(steady, drawing, strict=True):
        compare(real, picture_of_it, repeated)


def lived(known: Subject, plan: Sequence[Strategy], calls: int) -> list[list[Moments]]:
    """The moments of as many calls of the pipeline under `plan`, each of which must give the same picture."""
    device = Device(known.pipe)
    found: list[list[Moments]] = []
    with ExitStack() as undos:
        undos.enter_context(device)
        undos.enter_context(streams())
        undos.enter_context(files(device))
        undos.enter_context(slots(device))
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
    yield from (tuple(beside(facts, s)) for s in found if len(s.seats) > 1)
    names = [component.name for component in facts.model.components]
    own = [[s for s in found if {seat.component for seat in s.seats} == {name}] for name in names]
    for row in zip_longest(*own):
        apart = any(isinstance(s, OnCpu) for s in row)  # beside what computes on the CPU nothing comes on demand
        kept = (None if apart and isinstance(s, OnDemand) else s for s in row)
        yield tuple(s or OnGpu(name) for s, name in zip(kept, names, strict=True))


def places(strategy: Strategy) -> bool:
    """Partial residency has a test of its own, as it has many settings that differ in little."""
    return strategy.name != PartialResidency.name and {seat.decision for seat in strategy.seats} == {Decision.PLACEMENT}


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
    return max((own for _, found in moments.after for own, _ in found), default=0)  # nothing in host memory is seen


EVERY = ("vae", "text_encoder", "text_encoder_2", "transformer")
WITH_LORA: dict[str, tuple[Strategy, ...]] = {
    "streamed": (GroupOffload("text_encoder", stream=True), GroupOffload("transformer", "block_level", 1, stream=True)),
    "leaves": (GroupOffload("transformer"), GroupOffload("text_encoder")),
    "whole components": (ModelOffload(EVERY),),
    "one by one": (SequentialOffload(EVERY),),
}
"""Plans for FLUX with LoRAs."""


# ---- the tests ------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("family", some(FAMILIES, "sdxl"))
def test_what_is_held_is_what_was_said(family: str) -> None:
    known = subject(family)
    before = attributes(known.pipe)
    for plan in plans(known.facts):
        hold_together(known, plan)
        assert attributes(known.pipe) == before, plan
    assert torch.equal(picture(known.pipe, family), known.expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "setting"),
    [
        ("flux", "transformer,level=block_level,blocks=1,stream=true,record_stream=true"),
        ("flux", "transformer,disk={}"),
        ("sd3", "text_encoder,level=block_level,blocks=1,modules=text_model+encoder,disk={}"),
        *(
            pytest.param(*case, marks=pytest.mark.wide)
            for case in (
                ("flux", "transformer,stream=true,record_stream=true"),
                ("flux", "text_encoder_2,level=block_level,blocks=1,modules=encoder"),
                ("sd3", "transformer,level=block_level,blocks=1,disk={}"),
                ("sd3", "text_encoder,level=block_level,blocks=1,modules=text_model+encoder"),
                ("cogvideox", "vae,level=block_level,blocks=1,modules=encoder+decoder"),
                ("sana", "vae,level=block_level,blocks=1,modules=encoder+decoder"),
            )
        ),
    ],
)
def test_settings_that_are_named_and_not_searched(family: str, setting: str, tmp_path: Path) -> None:
    known = subject(family)
    named = parse(f"group_offload:{setting.format(tmp_path)}", known.facts)
    assert named not in list(GroupOffload.variants(known.facts))
    before = attributes(known.pipe)
    hold_together(known, beside(known.facts, named))
    assert attributes(known.pipe) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "plan"),
    [
        (
            "flux",
            "partial_residency:transformer,streamed=4 + partial_residency:text_encoder,streamed=9,level=leaf_level",
        ),
        ("wan22", "partial_residency:transformer,transformer_2,streamed=1"),
        ("wan22", "partial_residency:transformer,transformer_2,streamed=1,on_demand=true"),
        ("flux", "on_demand:text_encoder + partial_residency:transformer,streamed=2"),
        *(
            pytest.param(*case, marks=pytest.mark.wide)
            for case in (
                ("flux", "partial_residency:transformer,streamed=9 + group_offload:text_encoder"),
                ("flux", "partial_residency:text_encoder_2,streamed=2,modules=encoder"),
                ("wan22", "partial_residency:transformer,transformer_2,streamed=20,level=leaf_level"),
                ("wan22", "partial_residency:transformer,transformer_2,streamed=20,level=leaf_level,on_demand=true"),
                (
                    "wan22",
                    "partial_residency:transformer,streamed=1,on_demand=true + "
                    "partial_residency:transformer_2,streamed=1 + on_demand:text_encoder",
                ),
                ("sdxl", "partial_residency:unet,streamed=40,level=leaf_level"),
                ("sd3", "partial_residency:transformer,streamed=1"),
                ("modular_flux", "partial_residency:transformer,streamed=3"),
            )
        ),
    ],
)
def test_what_is_streamed_in_part_is_in_slots(family: str, plan: str) -> None:
    known = subject(family)
    before = attributes(known.pipe)
    hold_together(known, beside(known.facts, *parse_plan(plan, known.facts)))
    assert attributes(known.pipe) == before


@pytest.mark.slow
@pytest.mark.parametrize("plan", some(WITH_LORA, "streamed"))
@pytest.mark.parametrize("prepare", [with_lora, pytest.param(fused, marks=pytest.mark.wide)])
def test_adapters_move_with_their_layers(prepare: Callable[[Any], Any], plan: str) -> None:
    known = known_by("flux", prepare(build("flux")))
    before = attributes(known.pipe)
    hold_together(known, beside(known.facts, *WITH_LORA[plan]))
    assert attributes(known.pipe) == before


@pytest.mark.wide
@pytest.mark.parametrize("kind", [{"use_dora": True}, {"kind": "LoHa"}, {"kind": "LoKr"}], ids=str)
def test_what_is_not_refused_of_other_adapters_holds(kind: dict[str, Any]) -> None:
    pipe = build("flux")
    add(pipe.transformer, ATTENTION, **kind)
    known = known_by("flux", pipe)
    for plan in plans(known.facts):
        assert GroupOffload("transformer") not in plan
        hold_together(known, plan)


@pytest.mark.slow
def test_what_is_set_aside_is_never_on_the_device() -> None:
    known = with_image_encoder()
    (own,) = SetAside.variants(known.facts)
    assert own == SetAside("image_encoder")
    hold_together(known, beside(known.facts, own))


@pytest.mark.slow
@pytest.mark.parametrize("family", some(("flux", "sdxl", "wan", "flux2_klein", "sdxl_controlnet"), "sdxl"))
def test_what_computes_in_host_memory_is_never_on_the_device(family: str) -> None:
    """Beside denoisers in streamed groups."""
    known = subject(family)
    own = list(OnCpu.variants(known.facts))
    streamed = (GroupOffload(c.name, stream=True) for c in known.facts.model.components)
    groups = (s for s in streamed if known.facts.trace.phases(s.component) == frozenset({"denoising"}))
    assert own
    hold_together(known, beside(known.facts, *own, *groups))


@pytest.mark.slow
@pytest.mark.parametrize("family", some(("flux", "sdxl", "wan22", "cogvideox", "modular_flux"), "sdxl"))
def test_what_comes_on_demand_leaves_when_another_is_called(family: str) -> None:
    """All of them, and each beside others that stay or come in groups."""
    known = subject(family)
    before = attributes(known.pipe)
    own = list(OnDemand.variants(known.facts))
    hold_together(known, beside(known.facts, *own))
    groups = [s for s in map(GroupOffload, (s.component for s in own)) if not s.refuses(Run(known.facts))]
    for number, strategy in enumerate(own):
        others = [s for s in groups[number:] if s.component != strategy.component]
        hold_together(known, beside(known.facts, *in_order([strategy, *others])))
    assert attributes(known.pipe) == before


@pytest.mark.slow
def test_encoders_compute_in_host_memory_beside_a_cast_denoiser() -> None:
    known = known_by("flux", build("flux"))
    parse("layerwise_casting:transformer", known.facts).apply(known.pipe, "cpu")
    cast = replace(known, expected=picture(known.pipe, "flux"))
    lived(cast, beside(known.facts, OnCpu("text_encoder_2"), GroupOffload("transformer", stream=True)), calls=2)


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
