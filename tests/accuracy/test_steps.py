from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch

from memplan.facts import FULL, LORA, Trace, Training
from memplan.facts.training import ADAFACTOR, ADAMW, SGD, SGD_MOMENTUM
from memplan.simulator.optimizers import OPTIMIZERS
from memplan.strategies import Bnb4bit
from tests.accuracy.measured import peak_of
from tests.accuracy.steps import BATCH, RANK, adapt, call_of, denoiser, given, measured, step_of, traced
from tests.pipelines import build, inputs
from tests.some import some

WITHIN = 0.02
INTERVALS = (None, 1, 2, 4)
CAST = ("flux", "wan", "sd3", "ltx")
STEPS = tuple(f"{family} {kind}" for family in ("flux", "wan", "sdxl", "sd3", "ltx") for kind in (FULL, LORA))


def training(family: str, kind: str, autocast: str = "") -> Training:
    return Training(kind, batch=BATCH, rank=RANK, accumulate=2 if family == "wan" else 1, autocast=autocast)


@lru_cache(maxsize=8)
def dry_run(family: str, kind: str, autocast: str = "") -> Trace:
    return traced(family, training(family, kind, autocast))


@pytest.mark.slow
@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("what", some(STEPS, "flux full", "wan lora", "sdxl full"))
def test_a_dry_run_peaks_where_the_real_step_does(what: str, interval: int | None) -> None:
    family, kind = what.split()
    compare(family, kind, interval)


@pytest.mark.slow
@pytest.mark.parametrize("interval", [None, 1, *(pytest.param(i, marks=pytest.mark.wide) for i in (2, 4))])
@pytest.mark.parametrize("what", some((name for name in STEPS if name.split()[0] in CAST), "wan full"))
def test_so_does_one_under_autocast(what: str, interval: int | None) -> None:
    """Of transformers: what oneDNN's convolutions hold in bfloat16 depends on the CPU."""
    family, kind = what.split()
    compare(family, kind, interval, "bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize("interval", [None, pytest.param(1, marks=pytest.mark.wide)])
@pytest.mark.parametrize("nested", [False, pytest.param(True, marks=pytest.mark.wide)], ids=["plain", "nested"])
@pytest.mark.parametrize("family", some(("ltx", "sd3", "flux"), "ltx"))
def test_so_does_one_of_adapters_beside_weights_of_4_bits(family: str, nested: bool, interval: int | None) -> None:
    def quantize(pipe: Any) -> None:
        Bnb4bit("transformer", double_quant=nested).apply(pipe, "cpu")

    trained = Training(LORA, batch=BATCH, rank=RANK)
    call = call_of(traced(family, trained, first=quantize), interval)
    real = measured(family, trained, interval, first=quantize)[0]
    assert (call.activations - call.base) / real == pytest.approx(1, abs=WITHIN)


def compare(family: str, kind: str, interval: int | None, autocast: str = "") -> None:
    trace = dry_run(family, kind, autocast)
    assert not trace.failed
    real = measured(family, training(family, kind, autocast), interval)
    for number, peak in enumerate(real[: len(trace.calls)]):  # without gradients before it, and adding to them
        call = call_of(trace, interval, number)
        assert (call.activations - call.base) / peak == pytest.approx(1, abs=WITHIN), (number, call)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["flux", "sdxl"])
def test_the_peak_falls_with_the_interval(family: str) -> None:
    trace = dry_run(family, FULL)
    peaks = [call_of(trace, interval).activations for interval in (1, 2, 4, None)]
    assert peaks == sorted(peaks)
    assert peaks[0] < 0.5 * peaks[-1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", some((FULL, LORA), FULL))
@pytest.mark.parametrize("name", [ADAMW, ADAFACTOR, SGD, SGD_MOMENTUM])
def test_what_a_whole_step_holds_is_what_it_holds_on_this_cpu(name: str, kind: str) -> None:
    """Gradients, states and what the optimizer makes besides, from the second step on."""
    pipe = build("flux")
    part, trace = getattr(pipe, denoiser(pipe)), dry_run("flux", kind)
    if kind == LORA:
        adapt(part)
    weights = [weight for weight in part.parameters() if weight.requires_grad]
    assert [tuple(weight.shape) for weight in weights] == [weight.shape for weight in trace.trained]
    step, optimizer = step_of(part.train(), given(pipe, inputs("flux"), BATCH)), _OPTIMIZERS[name](weights)

    def whole() -> None:
        step()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    whole()
    _, peak = peak_of(whole)
    _, later = peak_of(lambda: (step(), optimizer.step()))
    call, gradients = call_of(trace, None), sum(weight.nbytes for weight in trace.trained)
    predicted = call.activations - call.base
    after = gradients + OPTIMIZERS[name].temporaries(trace.trained, "cpu")
    assert max(predicted, after) / peak == pytest.approx(1, abs=WITHIN)
    assert later >= peak * (1 - WITHIN)
    states = sum(OPTIMIZERS[name].held(trace.trained))
    own = (v for s in optimizer.state.values() for k, v in s.items() if isinstance(v, torch.Tensor) and k != "step")
    assert states == sum(tensor.untyped_storage().nbytes() for tensor in own)


def _adafactor(weights: list[torch.Tensor]) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    made: torch.optim.Optimizer = Adafactor(weights)
    return made


_OPTIMIZERS: dict[str, Callable[[list[torch.Tensor]], torch.optim.Optimizer]] = {
    ADAMW: torch.optim.AdamW,
    ADAFACTOR: _adafactor,
    SGD: lambda weights: torch.optim.SGD(weights, lr=0.1),
    SGD_MOMENTUM: lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
}
