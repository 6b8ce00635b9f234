"""How far formats round the weights at hand: the imitations against the installed libraries, and who is measured."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import memplan
from memplan.faces import api
from memplan.facts import Component, Weight
from memplan.probes.pipeline import rounding
from memplan.probes.pipeline.rounding import errors
from memplan.simulator.formats import CASTS
from memplan.simulator.formats import FORMATS as PRICED
from memplan.strategies import Bnb4bit, Bnb8bit, Fp8WeightOnly, Int8WeightOnly, ModelOpt, Quanto

FEATURES, COLUMNS = 256, 512
DRAWN: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "normal": lambda one, other: 0.02 * one,
    "heavy tails": lambda one, other: 0.02 * one * torch.exp(0.7 * other),
}


def layer(kind: str) -> torch.nn.Linear:
    """A linear layer whose weights are drawn like this."""
    source = torch.Generator().manual_seed(0)
    one, other = (torch.randn(FEATURES, COLUMNS, generator=source) for _ in range(2))
    made = torch.nn.Linear(COLUMNS, FEATURES, bias=False)
    made.weight = torch.nn.Parameter(DRAWN[kind](one, other), requires_grad=False)
    return made


def found(linear: torch.nn.Linear) -> dict[str, float]:
    """The measured error of its weight in each format."""
    weight = Weight("0.weight", linear.weight.numel(), "float32", columns=COLUMNS)
    part = Component("part", "Part", "other", "float32", (weight,))
    return {name: error for name, (error,) in errors(part, torch.nn.Sequential(linear))}


def off(stored: torch.Tensor, weight: torch.Tensor) -> float:
    """The relative root-mean-square error."""
    return float(((stored - weight).square().sum() / weight.square().sum()).sqrt())


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize(
    "strategy",
    [Int8WeightOnly("part"), Fp8WeightOnly("part"), Bnb8bit("part"), Quanto("part"), Bnb4bit("part"),
     Bnb4bit("part", quant_type="fp4"), Bnb4bit("part", double_quant=False),
     ModelOpt("part"), ModelOpt("part", weights="int4"), ModelOpt("part", weights="nvfp4")],
    ids=lambda s: s.format,
)  # fmt: skip
def test_an_imitation_errs_as_the_library_does(strategy: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "ROWS", FEATURES)
    linear = layer(kind)
    weight, measured = linear.weight.clone(), found(linear)[strategy.format]
    part = torch.nn.Sequential(linear)
    strategy.convert(part, "0", linear, "cpu")
    with torch.no_grad():
        stored = part[0](torch.eye(COLUMNS)).T
    assert measured == pytest.approx(off(stored, weight), rel=0.01)


@pytest.mark.parametrize("kind", DRAWN)
def test_some_rows_tell_about_what_all_do(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    some = found(layer(kind))
    monkeypatch.setattr(rounding, "ROWS", FEATURES)
    every = found(layer(kind))
    assert some == pytest.approx(every, rel=0.2)
    assert some != every


def test_every_format_that_is_priced_is_measured() -> None:
    assert {name for names in rounding.FORMATS.values() for name in names} == {*PRICED, *CASTS}


def test_normal_weights_err_as_the_price_list_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of formats that round nothing but weights, in which the row and the magnitude count for little."""
    monkeypatch.setattr(rounding, "ROWS", FEATURES)
    measured = found(layer("normal"))
    for name in ("nf4", "fp4", "int4", "float8"):
        assert measured[name] == pytest.approx(PRICED[name].error, rel=0.02)


def test_weights_that_are_not_at_hand_are_not_measured() -> None:
    linear = layer("normal")
    assert found(linear)
    assert not found(linear.to("meta"))
    assert not found(layer("normal").to(torch.float8_e4m3fn))


def test_a_pipeline_in_memory_is_measured() -> None:
    uneven = torch.nn.Linear(FEATURES, COLUMNS)
    module = torch.nn.Sequential(layer("normal"), uneven)
    uneven.weight.data[:, 0] = 1.0  # and the others are a 16th of that at most
    call = {"input": torch.zeros(2, COLUMNS)}
    facts = api.facts(module, call, target=memplan.Target(vram=8, ram=32))
    part = facts.model.component("model")
    measured = part.error("int8")
    assert measured.keys() == set(part.matrices())
    assert measured[0] == pytest.approx(found(layer("normal"))["int8"])
    assert measured[1] > 3 * measured[0]
    assert part.error("no such format") == memplan.probe(module).component("model").error("int8") == {}
