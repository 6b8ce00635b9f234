"""What only layerwise casting knows: whom it refuses, and that the pipeline still makes pictures."""

import pytest
import torch

from memplan.run import Run, Stored
from memplan.strategies import LayerwiseCasting
from tests.measured_facts import facts_of
from tests.pipelines import FAMILIES, build
from tests.test_strategy_laws import picture


@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        (LayerwiseCasting("transformer", "float8"), "storage is float8_e4m3fn or float8_e5m2"),
        (LayerwiseCasting("text_encoder"), "was measured with skip="),
    ],
)
def test_refuses(strategy: LayerwiseCasting, sentence: str) -> None:
    assert sentence in (strategy.refuses(Run(facts_of(build("flux")))) or "")


def test_refuses_what_is_cast_already() -> None:
    pipe = build("flux")
    LayerwiseCasting("transformer").apply(pipe, "cpu")
    assert "already" in (LayerwiseCasting("transformer").refuses(Run(facts_of(pipe))) or "")


def test_redraw_stores() -> None:
    run = LayerwiseCasting("transformer", "float8_e5m2").redraw(Run(facts_of(build("flux"))))
    assert run.stored("transformer") == Stored("float8_e5m2")


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_cast_at_once_still_makes_a_picture(family: str) -> None:
    pipe = build(family)
    exact = picture(pipe, family)
    for strategy in LayerwiseCasting.variants(facts_of(pipe)):
        strategy.apply(pipe, "cpu")
    cast = picture(pipe, family)
    assert torch.isfinite(cast).all()
    assert not torch.equal(cast, exact)
    assert (cast - exact).abs().mean() < 0.1
