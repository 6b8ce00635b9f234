"""What really happens on a device while a plan is applied: layers come, are converted, and go; then weights stay."""

from functools import cache
from typing import Any

import pytest
import torch

from memplan.facts import Facts, Weight
from memplan.registry import parse, parse_plan
from memplan.run import Run
from memplan.simulator.formats import FORMATS
from memplan.simulator.loading import loading
from memplan.simulator.weights import total
from memplan.strategies import ModelOffload, OnGpu
from memplan.strategy import Strategy, in_order
from tests.conformance.device import Device
from tests.measured_facts import facts_of
from tests.pipelines import build
from tests.some import some

TORCHAO = ("int8_weight_only", "int8_dynamic", "fp8_weight_only", "fp8_dynamic")
"""Formats that are made by the same ops on a CPU as on a device."""
OTHERS = ("bnb_4bit", "bnb_4bit:double_quant=false", "bnb_8bit", "quanto")


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
    return facts_of(build("flux", "medium", torch.bfloat16))


def drawn(plan: tuple[Strategy, ...]) -> Run:
    run = Run(known())
    for strategy in in_order(plan):
        run = strategy.redraw(run)
    return run


def formats(form: str) -> tuple[Strategy, ...]:
    name, _, settings = form.partition(":")
    plan = f"{name}:text_encoder_2,transformer" + (f",{settings}" if settings else "")
    return parse_plan(plan, known())


@pytest.mark.parametrize("form", some((*TORCHAO, *OTHERS), "int8_weight_only", "bnb_4bit"))
def test_a_format_has_one_layer_at_a_time_on_the_device(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, plan = build("flux", "medium", torch.bfloat16), formats(form)
    with Whole(pipe) as device:
        between = list[int]()
        for cls in {type(strategy): None for strategy in plan}:
            monkeypatch.setattr(cls, "convert", noting(device, between, cls.convert))  # type: ignore[attr-defined]
        for strategy in in_order(plan):
            strategy.apply(pipe, "cuda")
        run = drawn(plan)
        expected = highest(run, on_cpu=form in OTHERS)
        assert set(between) == {0}  # it goes back to host memory
        assert device.most == pytest.approx(expected, rel=0.02)
    if form in TORCHAO:
        away = ModelOffload(tuple(part.name for part in run.facts.model.components)).redraw(run)
        assert loading(away).memory.allocated == expected


def noting(device: Whole, between: list[int], real: Any) -> Any:
    def convert(*given: Any) -> None:
        real(*given)
        between.append(device.now)

    return convert


def highest(run: Run, on_cpu: bool) -> int:
    """The largest layer with what is made of it; `on_cpu` by kernels of the CPU, which stand in for the device's."""

    def of(weight: Weight, form: str) -> int:
        return weight.nbytes + FORMATS[form].making(weight, on_cpu)

    stored = {part: run.stored(part.name) for part in run.facts.model.components if run.stored(part.name).format}
    return max(of(p.weights[i], str(s.format)) for p, s in stored.items() for i in p.matrices(s.spared))


def test_then_what_lives_there_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which loading() adds it up: host memory is free before others want it."""
    pipe = build("flux", "medium", torch.bfloat16)
    texts = ("group_offload:text_encoder", "int8_weight_only:transformer")
    plan = (*(parse(text, known()) for text in texts), *(OnGpu(n) for n in ("transformer", "vae", "text_encoder_2")))
    held, run = list[tuple[str, int]](), drawn(plan)
    with Whole(pipe) as device:
        for strategy in in_order(plan):
            strategy.apply(pipe, "cuda")
            held.append((strategy.name, sum(device.held.values())))
        names = [name for name, _ in held]
        assert names == ["int8_weight_only", "on_gpu", "on_gpu", "on_gpu", "group_offload"]
        assert held[0] == ("int8_weight_only", 0)
        parts = [run.facts.model.component(name) for name in ("transformer", "vae", "text_encoder_2")]
        assert device.now >= held[-1][1] > 0
        assert device.now == pytest.approx(sum(total(part, run.stored(part.name)) for part in parts), rel=1e-3)
