"""Quantizers undone and failed: what stays where, on a pretend device, and what a second try does."""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from memplan import applier
from memplan.applier import applied, apply
from memplan.errors import ApplyFailed, InPart
from memplan.probes.pipeline import measure
from memplan.strategies import (
    Bnb4bit,
    Bnb8bit,
    ComputeDtype,
    Fp8WeightOnly,
    Int8WeightOnly,
    LayerwiseCasting,
    ModelOpt,
    OnGpu,
    Quanto,
)
from tests.conformance.device import Device
from tests.measured_facts import facts_of
from tests.pipelines import build
from tests.test_strategy_laws import attributes, picture

REPLACING = {
    "bnb_4bit": Bnb4bit("net", keep_original=True),
    "bnb_8bit": Bnb8bit("net", keep_original=True),
    "quanto": Quanto("net", keep_original=True),
    "quanto int4": Quanto("net", keep_original=True, weights="int4"),
    "modelopt": ModelOpt("net", keep_original=True),
}
"""Those that the pretend device can follow: it knows nothing of the storages inside torchao's weights."""
over_replacing = pytest.mark.parametrize(
    "strategy",
    [pytest.param(s, id=n, marks=[pytest.mark.wide] if n == "quanto int4" else []) for n, s in REPLACING.items()],
)
over_quantizers = pytest.mark.parametrize("kind", [Bnb4bit, Bnb8bit, Quanto, ModelOpt, Int8WeightOnly])
GIVEN = torch.ones(2, 256, dtype=torch.bfloat16)


class Box:
    """What apply() takes for a pipeline."""

    def __init__(self, part: torch.nn.Module) -> None:
        self.net, self.components = part, {"net": part}


def net() -> Any:
    part = torch.nn.Sequential(*(torch.nn.Linear(256, 256, dtype=torch.bfloat16) for _ in range(3)))
    return Box(part)


def places(part: torch.nn.Module) -> set[str]:
    return {weight.device.type for weight in (*part.parameters(), *part.buffers())}


# ---- undone ----------------------------------------------------------------------------------------------------------
@over_replacing
def test_undo_restores_it_on_the_host(strategy: Any) -> None:
    pipe = net()
    before, expected, weights = attributes(pipe), pipe.net(GIVEN), list(pipe.net.parameters())
    with Device(pipe) as device:
        undo = strategy.apply(pipe, "cuda")
        pipe.net.to("cuda")
        assert pipe.net(GIVEN.to("cuda")).shape == expected.shape
        undo()
        gc.collect()
        assert places(pipe.net) == {"cpu"}
        assert not device.held["net"]
        assert torch.equal(pipe.net(GIVEN), expected)
    assert attributes(pipe) == before
    assert all(one is other for one, other in zip(weights, pipe.net.parameters(), strict=True))


@over_replacing
def test_undo_restores_it_on_the_device_and_its_originals_wait_on_the_host(strategy: Any) -> None:
    pipe = net()
    expected = pipe.net(GIVEN)
    with Device(pipe) as device:
        pipe.net.to("cuda")
        resident = device.held["net"]
        biases = sum(layer.bias.nbytes for layer in pipe.net)
        undo = strategy.apply(pipe, "cuda")
        gc.collect()
        assert device.held["net"] <= biases
        undo()
        gc.collect()
        assert places(pipe.net) == {"cuda"}
        assert device.held["net"] == resident
        assert torch.equal(pipe.net(GIVEN.to("cuda")).to("cpu"), expected)


@pytest.fixture
def any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The applier finds a CUDA device wherever it looks for one."""
    monkeypatch.setattr(applier, "check_device", lambda _: None)


@pytest.mark.usefixtures("any_device")
@pytest.mark.parametrize("kind", [Bnb8bit, Quanto, LayerwiseCasting])
def test_a_whole_component_comes_back_from_the_device(kind: Any) -> None:
    pipe = build("flux")
    own = kind.measured(facts_of(pipe).model.component("text_encoder"))
    expected, before = picture(pipe, "flux"), attributes(pipe)
    with Device(pipe):
        done = apply([kind("text_encoder", keep_original=True, **own), OnGpu("text_encoder")], pipe, "cuda")
        assert "cuda" in places(pipe.text_encoder)
        done.undo()
        assert places(pipe.text_encoder) == {"cpu"}
        assert torch.equal(picture(pipe, "flux"), expected)
    assert attributes(pipe) == before


@pytest.mark.usefixtures("any_device")
def test_what_was_made_in_8_bits_stays_on_the_device() -> None:
    """Without its original: the rest of the component goes home, and to the device again where the user sends it."""
    pipe, tokens = build("flux"), torch.zeros(1, 8, dtype=torch.long)
    with Device(pipe), torch.no_grad():
        apply([Bnb8bit("text_encoder"), OnGpu("text_encoder")], pipe, "cuda").undo()
        packed = [layer for layer in pipe.text_encoder.modules() if type(layer).__name__ == "Linear8bitLt"]
        assert packed
        assert {weight.device.type for layer in packed for weight in layer.parameters()} == {"cuda"}
        with pytest.raises(RuntimeError, match="expected all tensors on one device"):
            pipe.text_encoder(tokens)
        pipe.text_encoder.to("cuda")
        assert torch.isfinite(pipe.text_encoder(tokens.to("cuda")).pooler_output).all()


# ---- hooks -----------------------------------------------------------------------------------------------------------
@over_quantizers
def test_hooks_of_a_layer_are_called_around_what_replaces_it(kind: Any) -> None:
    pipe = net()
    before = pipe.net[0].register_forward_pre_hook(
        lambda layer, args, kwargs: ((args[0] * 0,), kwargs), with_kwargs=True
    )
    after = pipe.net[2].register_forward_hook(lambda layer, given, made: made * 0)
    undo = kind("net", keep_original=True).apply(pipe, "cpu")
    assert not pipe.net(GIVEN).any()
    after.remove()
    silent = pipe.net(GIVEN)
    assert silent.any()
    before.remove()
    assert not torch.equal(pipe.net(GIVEN), silent)
    undo()
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in pipe.net)


def test_layers_under_hooks_of_diffusers_are_refused() -> None:
    pipe = build("flux")
    ComputeDtype("transformer", "bfloat16").apply(pipe, "cpu")
    assert "called through hooks" in str(measure(pipe).component("transformer").lack("quantization"))
    with pytest.raises(ApplyFailed, match=r"called through hooks: load it anew; the pipeline is as it was before"):
        apply([Bnb4bit("transformer")], pipe, "cpu")


# ---- failed ----------------------------------------------------------------------------------------------------------
@contextmanager
def failing(kind: Any, at: int) -> Generator[None]:
    """Its conversion of the layer of that number runs out of memory."""
    numbers, convert = iter(range(1, 1000)), kind.convert

    def fails(self: Any, *given: Any) -> None:
        if next(numbers) == at:
            raise torch.OutOfMemoryError("no more device memory")
        convert(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "convert", fails)
        yield


@over_quantizers
def test_a_failure_says_what_is_quantized_in_part_and_a_second_try_goes_on(kind: Any) -> None:
    pipe, strategy = net(), kind("net")
    with failing(kind, at=3), pytest.raises(ApplyFailed, match=r"net is quantized in part, 2 of 3 layers more: apply"):
        apply([strategy], pipe, "cpu")
    assert applied(pipe) is None
    first = list(pipe.net)[:2]
    other = Fp8WeightOnly("net")
    with pytest.raises(ApplyFailed, match="already"):
        apply([other], pipe, "cpu")
    apply([strategy], pipe, "cpu")
    assert list(pipe.net)[:2] == first
    assert len({type(layer.weight) for layer in pipe.net}) == 1
    assert pipe.net(GIVEN).isfinite().all()


@over_quantizers
def test_a_failure_at_the_first_layer_leaves_the_pipeline_as_it_was(kind: Any) -> None:
    pipe = net()
    before = attributes(pipe)
    with failing(kind, at=1), pytest.raises(ApplyFailed, match=r"memory; the pipeline is as it was before$") as failed:
        apply([kind("net")], pipe, "cpu")
    assert not isinstance(failed.value.__cause__, InPart)
    assert attributes(pipe) == before


@over_quantizers
def test_a_failure_puts_back_what_is_kept(kind: Any) -> None:
    pipe = net()
    before, expected = attributes(pipe), pipe.net(GIVEN)
    with failing(kind, at=3), pytest.raises(ApplyFailed, match="the pipeline is as it was before"):
        apply([kind("net", keep_original=True)], pipe, "cpu")
    assert attributes(pipe) == before
    assert torch.equal(pipe.net(GIVEN), expected)


@pytest.mark.usefixtures("any_device")
@pytest.mark.parametrize("keep", [True, False])
def test_a_failure_inside_quanto_leaves_the_layer_on_the_host(keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from optimum import quanto

    def fails(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("no more device memory")

    pipe = net()
    monkeypatch.setattr(quanto.QLinear, "from_module", fails)
    with Device(pipe) as device:
        with pytest.raises(ApplyFailed, match="the pipeline is as it was before"):
            apply([Quanto("net", keep_original=keep)], pipe, "cuda")
        assert places(pipe.net) == {"cpu"}
        assert not device.held["net"]
