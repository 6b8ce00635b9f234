from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memplan.facts import Trained
from memplan.facts.training import ADAFACTOR, ADAMW, ADAMW_8BIT, SGD, SGD_MOMENTUM
from memplan.simulator.optimizers import CODES, OPTIMIZERS, averaging
from tests.accuracy.measured import peak_of

SHAPES = ((4096,), (4095,), (64, 64), (63, 65), (3, 5, 7, 11), (2, 70, 40), (1, 1), (129,))
"""Below, at and above 4096 elements, which is where bitsandbytes begins to use 8 bits."""


def _adamw_8bit(parameters: Any) -> Any:
    import bitsandbytes

    return bitsandbytes.optim.AdamW8bit(parameters)


def _adafactor(parameters: Any) -> Any:
    import transformers

    return transformers.optimization.Adafactor(parameters)


MAKERS: dict[str, Callable[[Any], Any]] = {
    ADAMW: torch.optim.AdamW,
    ADAMW_8BIT: _adamw_8bit,
    ADAFACTOR: _adafactor,
    SGD: lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    SGD_MOMENTUM: lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
}


def parameters(dtype: torch.dtype, shapes: Iterable[tuple[int, ...]] = SHAPES) -> list[torch.nn.Parameter]:
    made = [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]
    for parameter in made:
        parameter.grad = torch.randn_like(parameter)
    return made


def trained(of: Iterable[torch.nn.Parameter]) -> list[Trained]:
    return [Trained(str(i), tuple(p.shape), str(p.dtype).removeprefix("torch.")) for i, p in enumerate(of)]


def held(optimizer: Any) -> int:
    """Bytes of an optimizer's states, but for AdamW's counts of steps, which are in host memory."""
    found: dict[int, int] = {}
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and name != "step":
                found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return sum(found.values())


def stepped(name: str, weights: list[torch.nn.Parameter]) -> Any:
    """The optimizer after a step; bitsandbytes' makes its states there, and its kernels need not run."""
    optimizer = MAKERS[name](weights)
    if name != ADAMW_8BIT:
        optimizer.step()
        return optimizer
    for number, weight in enumerate(weights):
        optimizer.init_state(optimizer.param_groups[0], weight, 0, number)
    return optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MAKERS)
def test_states_are_those_of_the_real_optimizer(name: str, dtype: torch.dtype) -> None:
    weights = parameters(dtype)
    assert sum(OPTIMIZERS[name].held(trained(weights))) == held(stepped(name, weights))


def test_small_parameters_keep_full_states_under_8_bits() -> None:
    small, large = Trained("", (4095,)), Trained("", (4096,))
    assert OPTIMIZERS[ADAMW_8BIT].held([small]) == (4095 * 4, 4095 * 4)
    assert OPTIMIZERS[ADAMW_8BIT].held([large]) == (4096, 4096, 16 * 4, 16 * 4, *CODES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [ADAMW, ADAFACTOR, SGD, SGD_MOMENTUM])
def test_a_step_holds_what_it_holds_on_this_cpu(name: str, dtype: torch.dtype) -> None:
    weights = parameters(dtype, ((256, 512), (300,), (64, 32, 3, 3)))
    optimizer = stepped(name, weights)
    predicted = OPTIMIZERS[name].temporaries(trained(weights), "cpu")
    _, peak = peak_of(optimizer.step)
    assert abs(peak - predicted) <= max(0.02 * predicted, 2048)


def test_on_a_gpu_adamw_takes_all_roots_of_a_dtype_at_once() -> None:
    weights = [Trained("", (1000,)), Trained("", (500,)), Trained("", (800,), "bfloat16")]
    assert OPTIMIZERS[ADAMW].temporaries(weights, "cuda") == 6000
    assert OPTIMIZERS[ADAMW].temporaries(weights, "cpu") == 8000


def test_averages_are_updated_as_diffusers_does_it() -> None:
    from diffusers.training_utils import EMAModel

    weights = parameters(torch.float32, ((256, 512), (300,)))
    average = EMAModel(weights)
    assert sum(p.numel() * p.element_size() for p in average.shadow_params) == sum(w.nbytes for w in trained(weights))
    _, peak = peak_of(lambda: average.step(weights))
    assert peak == pytest.approx(averaging(trained(weights)), rel=0.01)


@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4), min_size=1, max_size=5))
def test_adafactor_never_holds_more_than_adamw(shapes: list[list[int]]) -> None:
    weights = [Trained("", tuple(shape)) for shape in shapes]
    assert sum(OPTIMIZERS[ADAFACTOR].held(weights)) <= sum(OPTIMIZERS[ADAMW].held(weights)) + 12 * len(weights)
