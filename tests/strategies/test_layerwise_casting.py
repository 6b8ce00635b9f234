"""What only layerwise casting knows: whom it refuses, and that the pipeline still makes pictures."""

import gc

import pytest
import torch
from diffusers.hooks import HookRegistry, ModelHook

from memplan.planner import draw
from memplan.run import Run, Stored
from memplan.simulator.weights import originals
from memplan.strategies import LayerwiseCasting
from tests.conformance.device import Device
from tests.measured_facts import facts_of
from tests.pipelines import FAMILIES, build
from tests.test_strategy_laws import attributes, picture


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


def test_originals_are_kept_on_request() -> None:
    facts = facts_of(build("flux"))
    plain, kept = (draw(facts, [LayerwiseCasting("transformer", keep_original=keep)]) for keep in (False, True))
    part = facts.model.component("transformer")
    size = originals(part, kept.run.stored("transformer"))
    assert size == sum(part.weights[i].nbytes for i in part.cast) > 0
    assert kept.bill.host.steady - plain.bill.host.steady == size
    assert LayerwiseCasting("transformer", keep_original=True).final is None


def test_undone_over_hooks_it_leaves_those() -> None:
    pipe = build("flux")
    layer = pipe.transformer.transformer_blocks[0].attn.to_q
    registry = HookRegistry.check_if_exists_or_initialize(layer)
    registry.register_hook(hook := ModelHook(), "own")
    expected, before = picture(pipe, "flux"), attributes(pipe)
    undo = LayerwiseCasting("transformer", keep_original=True).apply(pipe, "cpu")
    assert registry._hook_order == ["own", "layerwise_casting"]
    undo()
    assert registry.hooks == {"own": hook}
    assert attributes(pipe) == before
    assert torch.equal(picture(pipe, "flux"), expected)


def test_originals_wait_on_the_host() -> None:
    pipe = build("flux")
    with Device(pipe) as device:
        pipe.transformer.to("cuda")
        resident = device.held["transformer"]
        before = [weight.dtype for weight in pipe.transformer.parameters()]
        undo = LayerwiseCasting("transformer", keep_original=True).apply(pipe, "cuda")
        gc.collect()
        assert device.held["transformer"] < 0.7 * resident
        undo()
        gc.collect()
        assert device.held["transformer"] == resident
    assert [weight.dtype for weight in pipe.transformer.parameters()] == before


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
