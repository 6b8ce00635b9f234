"""Formats against the installed quantizers: their bytes, what their layers hold, and how far off results are."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch

from memplan.facts import Call, Weight
from memplan.probes.fakes.quantized import inner_tensors
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.simulator.formats import FORMATS, Leaf
from memplan.strategies import Bnb4bit, Bnb8bit, Fp8WeightOnly, Int8Dynamic, Int8WeightOnly, ModelOpt, Quanto
from tests.accuracy.measured import peak_of

STRATEGIES: dict[str, Callable[[], Any]] = {
    "nf4": lambda: Bnb4bit("net", double_quant=False),
    "nf4 nested": lambda: Bnb4bit("net"),
    "fp4": lambda: Bnb4bit("net", quant_type="fp4", double_quant=False),
    "fp4 nested": lambda: Bnb4bit("net", quant_type="fp4"),
    "bnb int8": lambda: Bnb8bit("net"),
    "int8": lambda: Int8WeightOnly("net"),
    "int8 dynamic": lambda: Int8Dynamic("net"),
    "float8": lambda: Fp8WeightOnly("net"),
    "quanto int8": lambda: Quanto("net"),
    "quanto float8": lambda: Quanto("net", weights="float8"),
    "quanto int4": lambda: Quanto("net", weights="int4"),
    "modelopt int8": lambda: ModelOpt("net"),
    "modelopt int4": lambda: ModelOpt("net", weights="int4"),
    "modelopt nvfp4": lambda: ModelOpt("net", weights="nvfp4"),
}
"""What makes each format on a CPU."""
BFLOAT16_ALONE = ("quanto int4",)
"""What is packed for a kernel in bfloat16."""
SIZES = ((64, 256, 128), (4096, 1024, 256), (4096, 256, 1024), (16, 1024, 2048), (3, 512, 512), (64, 1030, 1024))
"""Rows of the input, columns and rows of the weight: many rows and few, wide and tall, sides that kernels refuse."""


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


def takes(form: str, columns: int, features: int, dtype: torch.dtype = torch.bfloat16) -> bool:
    """Whether a layer of these sides is converted."""
    columns_of, rows_of = STRATEGIES[form]().sides
    return (
        not columns % columns_of and not features % rows_of and (form not in BFLOAT16_ALONE or dtype == torch.bfloat16)
    )


@pytest.mark.parametrize("form", STRATEGIES)
@pytest.mark.parametrize(("columns", "features"), [(256, 128), (128, 16), (1000, 3), (320, 65), (64, 1)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_bytes(form: str, columns: int, features: int, dtype: torch.dtype) -> None:
    if not takes(form, columns, features, dtype):
        return  # the strategy refuses such a layer, or leaves it
    layer = quantized(form, columns, features, dtype=dtype)[0]
    held = [*inner_tensors(layer.weight), *layer.buffers()]
    expected = [t.numel() * t.element_size() for t in held]
    fact = Weight("weight", columns * features, str(dtype).removeprefix("torch."), columns=columns)
    assert sorted(FORMATS[form].tensors(fact)) == sorted(expected)


def call_of(module: torch.nn.Module, rows: int, columns: int, dtype: torch.dtype = torch.bfloat16) -> Call:
    trace = dry_run(open_pipeline(module), {"input": torch.zeros(rows, columns, dtype=dtype)}, "cuda")
    return next(call for call in trace.calls if call.component)


UNTRACED = tuple(form for form in STRATEGIES if form.startswith("modelopt"))
"""Formats that no dry run follows."""


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("form", [form for form in STRATEGIES if form not in UNTRACED])
def test_what_a_layer_holds(form: str, bias: bool) -> None:
    for rows, columns, features in (size for size in SIZES if takes(form, *size[1:])):
        call = call_of(quantized(form, columns, features, bias=bias), rows, columns)
        leaf = Leaf(rows, columns, features, "bfloat16", bias)
        # A CUDA device rounds each of a handful of small tensors up to 512 bytes.
        assert FORMATS[form].held(leaf) == pytest.approx(call.peak_segment.peak, abs=2048), (rows, columns, features)


@pytest.mark.parametrize("rows", [3, 64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("form", ["bnb int8", "int8 dynamic"])
def test_what_a_layer_holds_in_other_dtypes(form: str, dtype: torch.dtype, rows: int) -> None:
    """What is rounded and multiplied is copied from, and to, the layer's dtype."""
    call = call_of(quantized(form, 512, 256, dtype=dtype), rows, 512, dtype)
    leaf = Leaf(rows, 512, 256, str(dtype).removeprefix("torch."), True)
    assert FORMATS[form].held(leaf) == pytest.approx(call.peak_segment.peak, abs=2048)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("form", ["quanto int8", "quanto float8"])
def test_what_a_layer_of_quanto_really_holds(form: str, bias: bool) -> None:
    """On the CPU in float32, where it runs the code that it runs on CUDA.

    Only there does PyTorch copy int8 to multiply it by float32, as quanto itself copies float8 on both
    (`TensorIteratorBase::compute_types`).
    """
    for rows, columns, features in ((64, 1024, 256), (1024, 256, 1024)):
        layer = quantized(form, columns, features, bias=bias, dtype=torch.float32)
        given = torch.zeros(rows, columns)
        with torch.no_grad():
            _, peak = peak_of(partial(layer, given))
        leaf = Leaf(rows, columns, features, "float32", bias)
        assert FORMATS["quanto float8"].held(leaf) == pytest.approx(peak, rel=0.002)
        assert peak == pytest.approx(max(FORMATS[form].held(leaf), 2 * 4 * leaf.weight), rel=0.002)


def test_what_a_layer_of_quanto_in_4_bits_really_holds() -> None:
    """On the CPU, which has PyTorch's kernel too."""
    for bias, (rows, columns, features) in product((True, False), ((64, 1024, 256), (1024, 256, 1024))):
        layer = quantized("quanto int4", columns, features, bias=bias)
        with torch.no_grad():
            _, peak = peak_of(partial(layer, torch.zeros(rows, columns, dtype=torch.bfloat16)))
        assert FORMATS["quanto int4"].held(Leaf(rows, columns, features, "bfloat16", bias)) == peak


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("form", UNTRACED)
def test_what_a_layer_of_modelopt_really_holds(form: str, dtype: torch.dtype) -> None:
    """On the CPU, where it runs the code that it runs on CUDA: few rows, whose weight is the most, and many."""
    for bias, (rows, columns, features) in product((True, False), ((64, 1024, 256), (3072, 256, 1024))):
        layer = quantized(form, columns, features, bias=bias, dtype=dtype)
        given = torch.zeros(rows, columns, dtype=dtype)
        with torch.no_grad():
            layer(given)
            _, peak = peak_of(partial(layer, given))
        leaf = Leaf(rows, columns, features, str(dtype).removeprefix("torch."), bias)
        assert FORMATS[form].held(leaf) == pytest.approx(peak, rel=0.002)


@pytest.mark.parametrize("form", STRATEGIES)
def test_error_of_a_layer(form: str) -> None:
    """Of the product of normally distributed inputs and weights."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if form in BFLOAT16_ALONE else torch.float32
    holder, given = Holder(3072, 256, False, dtype), torch.randn(64, 3072, dtype=dtype)
    with torch.no_grad():
        holder.net[0].weight.normal_()
        expected = holder.net(given).float()
        STRATEGIES[form]().apply(holder, "cpu")
        made = holder.net(given).float()
    error = ((made - expected).square().mean() / expected.square().mean()).sqrt()
    assert float(error) == pytest.approx(FORMATS[form].error, rel=0.08)


# ---- float8 products, which a CPU does not compute -------------------------------------------------------------------
def float8_dynamic(columns: int, features: int, bias: bool) -> Any:
    """What Float8DynamicActivationFloat8WeightConfig makes, which a CPU refuses to."""
    workflows = pytest.importorskip("torchao.quantization.quantize_.workflows.float8.float8_tensor")
    module: Any = Holder(columns, features, bias, torch.bfloat16).net
    settings = workflows.QuantizeTensorToFloat8Kwargs(torch.float8_e4m3fn, workflows.PerTensor())
    module[0].weight = torch.nn.Parameter(
        workflows.Float8Tensor.from_hp(
            module[0].weight.data,
            granularity=workflows.PerTensor(),
            mm_config=workflows.Float8MMConfig(),
            act_quant_kwargs=settings,
        ),
        requires_grad=False,
    )
    return module


@pytest.mark.parametrize(("rows", "columns", "features"), SIZES)
def test_float8_products(rows: int, columns: int, features: int) -> None:
    module = float8_dynamic(columns, features, True)
    expected = [t.numel() * t.element_size() for t in inner_tensors(module[0].weight)]
    form = FORMATS["float8 dynamic"]
    assert list(form.tensors(Weight("weight", columns * features, "bfloat16", columns=columns))) == expected
    if columns % 16:
        return  # such a layer stays as it is
    held = form.held(Leaf(rows, columns, features, "bfloat16", True))
    assert held == pytest.approx(call_of(module, rows, columns).peak_segment.peak, abs=4096)


def test_the_error_of_float8_products_is_that_of_both_factors() -> None:
    assert FORMATS["float8 dynamic"].error == pytest.approx(FORMATS["float8"].error * 2**0.5, rel=0.02)


def test_int4_is_padded() -> None:
    """By hand: 1152 columns become 2048, 100 rows 104."""
    weight, leaf = Weight("weight", 1152 * 100, "bfloat16", columns=1152), Leaf(10, 1152, 100, "bfloat16", True)
    assert FORMATS["int4"].tensors(weight) == (2048 * 104 // 2, 2048 // 128 * 104 * 2 * 2)
    assert FORMATS["int4"].held(leaf) == 10 * 2048 * 2 + 10 * 104 * 2 + 10 * 100 * 2
