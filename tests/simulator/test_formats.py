"""Formats against the installed quantizers: their bytes, what their layers hold, and how far off results are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from memplan.facts import Call, Weight
from memplan.probes.fakes.quantized import inner_tensors
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.simulator.formats import FORMATS, Leaf
from memplan.strategies import Bnb4bit, Bnb8bit, Fp8WeightOnly, Int8Dynamic, Int8WeightOnly

STRATEGIES: dict[str, Callable[[], Any]] = {
    "nf4": lambda: Bnb4bit("net", double_quant=False),
    "nf4 nested": lambda: Bnb4bit("net"),
    "fp4": lambda: Bnb4bit("net", quant_type="fp4", double_quant=False),
    "fp4 nested": lambda: Bnb4bit("net", quant_type="fp4"),
    "bnb int8": lambda: Bnb8bit("net"),
    "int8": lambda: Int8WeightOnly("net"),
    "int8 dynamic": lambda: Int8Dynamic("net"),
    "float8": lambda: Fp8WeightOnly("net"),
}
"""What makes each format; the formats of other packages have tests of their own."""
SIZES = ((64, 256, 128), (4096, 1024, 256), (4096, 256, 1024), (16, 1024, 2048), (3, 512, 512))
"""Rows of the input, columns and rows of the weight."""


class Holder:
    """A pipeline of one component, as strategies see it."""

    def __init__(self, columns: int, features: int, bias: bool, dtype: torch.dtype) -> None:
        self.net: Any = torch.nn.Sequential(torch.nn.Linear(columns, features, bias=bias, dtype=dtype)).eval()


def quantized(form: str, columns: int, features: int, *, bias: bool = True, dtype: torch.dtype = torch.bfloat16) -> Any:
    holder = Holder(columns, features, bias, dtype)
    STRATEGIES[form]().apply(holder, "cpu")
    layer: Any = holder.net[0]
    layer.support_avx512bf16_for_cpu = False  # on such a processor the first call packs 4-bit weights
    return holder.net


@pytest.mark.parametrize("form", STRATEGIES)
@pytest.mark.parametrize(("columns", "features"), [(256, 128), (1000, 3), (320, 65), (64, 1)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_bytes(form: str, columns: int, features: int, dtype: torch.dtype) -> None:
    weight: Any = quantized(form, columns, features, dtype=dtype)[0].weight
    expected = [t.numel() * t.element_size() for t in inner_tensors(weight)]
    fact = Weight("weight", columns * features, str(dtype).removeprefix("torch."), columns=columns)
    assert sorted(FORMATS[form].tensors(fact)) == sorted(expected)


def call_of(module: torch.nn.Module, rows: int, columns: int) -> Call:
    trace = dry_run(open_pipeline(module), {"input": torch.zeros(rows, columns, dtype=torch.bfloat16)}, "cuda")
    return next(call for call in trace.calls if call.component)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("form", [form for form in STRATEGIES if form != "bnb int8"])
def test_what_a_layer_holds(form: str, bias: bool) -> None:
    for rows, columns, features in SIZES:
        call = call_of(quantized(form, columns, features, bias=bias), rows, columns)
        leaf = Leaf(rows, columns, features, 2, bias)
        # A CUDA device rounds each of a handful of small tensors up to 512 bytes.
        assert FORMATS[form].held(leaf) == pytest.approx(call.peak_segment.peak, abs=2048), (rows, columns, features)


@pytest.mark.parametrize("form", STRATEGIES)
def test_error_of_a_layer(form: str) -> None:
    """Of the product of normally distributed inputs and weights."""
    torch.manual_seed(0)
    holder, given = Holder(3072, 256, False, torch.float32), torch.randn(64, 3072)
    with torch.no_grad():
        holder.net[0].weight.normal_()
        expected = holder.net(given)
        STRATEGIES[form]().apply(holder, "cpu")
        made = holder.net(given)
    error = ((made - expected).square().mean() / expected.square().mean()).sqrt()
    assert float(error) == pytest.approx(FORMATS[form].error, rel=0.08)
