"""What really happens while a plan is applied: layers come to a device, are converted, and go; then weights stay there.

The pretend device does not hold the tensors of torchao and quanto; of those it is seen where their layers go.
"""

from dataclasses import replace
from functools import cache
from itertools import groupby
from typing import Any

import pytest
import torch

from memplan.allocator import UNIT
from memplan.facts import Facts
from memplan.registry import parse_plan
from memplan.run import OnCall, Run, Stored
from memplan.simulator.loading import loading
from memplan.simulator.movers import outside
from memplan.simulator.weights import blocks, tensors, total
from memplan.strategies import GroupOffload, LayerwiseCasting, OnGpu, PartialResidency
from memplan.strategy import Strategy, in_order
from tests.conformance.device import Device, slots, streams
from tests.measured_facts import facts_of
from tests.pipelines import build
from tests.some import some

PARTS = "text_encoder_2,transformer"


class Whole(Device):
    """Counts everything on the device, not weights alone: what is there `now`, and the `most`."""

    def __init__(self, pipe: Any) -> None:
        self.now = self.most = 0
        super().__init__(pipe)

    def _count(self, copy: Any, sign: int) -> None:
        super()._count(copy, sign)
        self.now += sign * copy.nbytes * copy.on_device
        self.most = max(self.most, self.now)


@cache
def known() -> Facts:
    return facts_of(build("flux", dtype=torch.bfloat16))


def drawn(plan: tuple[Strategy, ...]) -> Run:
    run = Run(known())
    for strategy in in_order(plan):
        assert strategy.refuses(run) is None
        run = strategy.redraw(run)
    return run


def sizes(run: Run) -> dict[str, int]:
    return {part.name: total(part, run.stored(part.name)) for part in run.facts.model.components}


CODES = 4096
"""Bytes of bitsandbytes' tables of values, which it keeps on the device for all layers."""


@pytest.mark.parametrize("form", some(("bnb_4bit", "bnb_4bit:double_quant=false"), "bnb_4bit"))
def test_one_layer_at_a_time_is_on_the_device(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left there between two; the most is what the bill says where all else stays in host memory."""
    pipe, (name, _, settings) = build("flux", dtype=torch.bfloat16), form.partition(":")
    plan = parse_plan(f"{name}:{PARTS},{settings}".rstrip(","), known())
    with Whole(pipe) as device:
        between = watched(plan, device, monkeypatch)
        for strategy in in_order(plan):
            strategy.apply(pipe, "cuda")
        assert max(between) <= CODES
        away = drawn(plan)
        for part in away.facts.model.components:
            away = away.place(part.name, OnCall())
        assert device.most == pytest.approx(loading(away).memory.allocated, rel=0.02, abs=CODES)


def test_layers_in_8_bits_stay_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be there twice, had they gone back to host memory in between."""
    pipe, plan = build("flux", dtype=torch.bfloat16), parse_plan(f"bnb_8bit:{PARTS}", known())
    everywhere = (*plan, *(OnGpu(name) for name in sizes(Run(known()))))
    with Whole(pipe) as device:
        between = watched(plan, device, monkeypatch)
        for strategy in in_order(everywhere):
            strategy.apply(pipe, "cuda")
        assert between == sorted(between)
        assert between[0] > 0
        run = drawn(everywhere)
        assert device.now == pytest.approx(sum(sizes(run).values()), rel=0.001)
        weights = sum(blocks(part, run.stored(part.name))[0] for part in run.facts.model.components)
        assert device.most <= loading(run).memory.allocated
        assert loading(run).memory.allocated >= weights
    assert "on the device from when they are made" in str(drawn(plan).lack("transformer", "set_aside"))


@pytest.mark.parametrize("form", some(("bnb_4bit", "bnb_8bit"), "bnb_4bit"))
def test_what_is_there_already_is_converted_in_place(form: str) -> None:
    """Nothing goes back, and the most is what was there with one result and what it takes to make it."""
    pipe, plan = build("flux", dtype=torch.bfloat16), parse_plan(f"{form}:{PARTS}", known())
    everywhere = tuple(OnGpu(name) for name in sizes(Run(known())))
    with Whole(pipe) as device:
        for there in everywhere:
            there.apply(pipe, "cuda")
        device.most = device.now
        for strategy in in_order(plan):
            strategy.apply(pipe, "cuda")
        run = drawn((*plan, *everywhere))
        parts = tuple(replace(part, on_device=True) for part in run.facts.model.components)
        met = replace(run, facts=replace(run.facts, model=replace(run.facts.model, components=parts)))
        peak = loading(met)
        assert device.now == pytest.approx(sum(sizes(run).values()), rel=0.001, abs=CODES)
        rounding = UNIT * sum(len(made) for part in parts for made in tensors(part, run.stored(part.name)))
        assert device.most - CODES <= peak.memory.allocated <= device.most + rounding
    assert peak.memory.allocated > loading(run).memory.allocated


def watched(plan: tuple[Strategy, ...], device: Whole, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What is on the device after each layer that `plan` converts."""
    between = list[int]()
    for cls in {type(strategy): None for strategy in plan}:
        real = cls.convert  # type: ignore[attr-defined]

        def convert(*given: Any, real: Any = real) -> None:
            real(*given)
            between.append(device.now)

        monkeypatch.setattr(cls, "convert", convert)
    return between


@pytest.mark.parametrize("form", some(("int8_weight_only", "int8_dynamic", "fp8_weight_only", "quanto"), "quanto"))
def test_others_bring_each_layer_to_the_device_and_back(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, (strategy,) = build("flux", dtype=torch.bfloat16), parse_plan(f"{form}:transformer", known())
    went = list[str]()

    def to(self: Any, place: Any = None, *_: Any, **__: Any) -> Any:
        went.append(str(place))
        return self

    count = sum(isinstance(layer, torch.nn.Linear) for layer in pipe.transformer.modules())
    monkeypatch.setattr(torch.nn.Module, "to", to)
    strategy.apply(pipe, "cuda")
    moves = [place for place, _ in groupby(place for place in went if place in ("cuda", "cpu"))]
    assert moves == ["cuda", "cpu"] * count


def test_what_is_streamed_in_part_is_never_there_whole() -> None:
    pipe, plan = build("flux", dtype=torch.bfloat16), (PartialResidency("transformer", 4),)
    run = drawn(plan)
    transformer = run.facts.model.component("transformer")
    with Whole(pipe) as device, slots(device), streams():
        plan[0].apply(pipe, "cuda")
        assert device.most == device.now == outside(transformer, run.placement("transformer"), Stored())
    others = [blocks(part, Stored())[0] for part in run.facts.model.components if part is not transformer]
    assert 0 <= loading(run).memory.allocated - sum(others) - device.now < 512 * len(transformer.weights)


def test_casting_happens_in_host_memory() -> None:
    pipe, plan = build("flux", dtype=torch.bfloat16), (LayerwiseCasting("transformer"),)
    with Whole(pipe) as device:
        plan[0].apply(pipe, "cuda")
        assert device.most == 0


def test_what_lives_on_the_device_goes_there_before_others_take_host_memory() -> None:
    pipe = build("flux", dtype=torch.bfloat16)
    there = ("transformer", "vae", "text_encoder_2")
    plan = (GroupOffload("text_encoder"), LayerwiseCasting("transformer"), *map(OnGpu, there))
    steps, run = list[tuple[str, int]](), drawn(plan)
    with Whole(pipe) as device:
        for strategy in in_order(plan):
            strategy.apply(pipe, "cuda")
            steps.append((strategy.name, device.now))
    own = sizes(run)
    sums = [own["text_encoder_2"], own["text_encoder_2"] + own["transformer"], sum(own[name] for name in there)]
    assert [name for name, _ in steps] == ["layerwise_casting", *["on_gpu"] * 3, "group_offload"]
    assert [held for _, held in steps] == [0, *sums, sums[-1]]
    assert device.most == sums[-1] <= loading(run).memory.allocated
