"""Live weights that are quantized already: their real bytes, what their layers hold, and that nothing touches them."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from diffusers.hooks.group_offloading import ModuleGroup

from memplan.errors import Unsupported
from memplan.facts import Call
from memplan.probes.fakes.quantized import inner_tensors
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.probes.sources.gguf import library
from memplan.probes.trace import dry_run
from tests.accuracy.cpu import SMALL, WITHOUT_A_DECODE, pairs
from tests.accuracy.measured import peak_of
from tests.conformance.device import Stream
from tests.pipelines.quantized import eight_bit_parts

IN, OUT, ROWS = 256, 128, 64
DTYPE = torch.bfloat16
Make = Callable[[], torch.nn.Module]


def torchao(name: str, **settings: Any) -> Make:
    def make() -> torch.nn.Module:
        quantization = pytest.importorskip("torchao.quantization")
        module = plain()
        quantization.quantize_(module, getattr(quantization, name)(**settings))
        return module

    return make


def four_bit(nested: bool) -> Make:
    def make() -> torch.nn.Module:
        nn = pytest.importorskip("bitsandbytes").nn
        module = plain()
        layer = nn.Linear4bit(IN, OUT, compute_dtype=DTYPE, quant_type="nf4", compress_statistics=nested)
        layer.weight = nn.Params4bit(
            module[0].weight.data, requires_grad=False, quant_type="nf4", compress_statistics=nested, module=layer
        )
        layer.bias = module[0].bias
        layer.support_avx512bf16_for_cpu = False  # on such a processor the first call packs the weight
        return torch.nn.Sequential(layer.to("cpu")).eval()

    return make


def eight_bit(threshold: float = 6.0, dtype: torch.dtype = torch.float16) -> torch.nn.Module:
    nn = pytest.importorskip("bitsandbytes").nn
    layer = nn.Linear8bitLt(IN, OUT, has_fp16_weights=False, threshold=threshold)
    layer.weight = nn.Int8Params(torch.randn(OUT, IN).half(), requires_grad=False, has_fp16_weights=False)
    layer.bias = torch.nn.Parameter(torch.zeros(OUT, dtype=dtype))
    return torch.nn.Sequential(layer.to("cpu")).eval()


def plain() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(IN, OUT, dtype=DTYPE)).eval()


def gguf() -> torch.nn.Module:
    layer = library().GGUFLinear(IN, OUT, True, compute_dtype=DTYPE)
    data = torch.zeros(OUT, IN // 32 * 34, dtype=torch.uint8)
    layer.weight = library().GGUFParameter(data, quant_type=library().gguf.GGMLQuantizationType.Q8_0)
    layer.bias = torch.nn.Parameter(torch.zeros(OUT, dtype=DTYPE))
    return torch.nn.Sequential(layer).eval()


SCALES = IN * OUT // 64
CASES: dict[str, tuple[Make, int]] = {
    "int8": (torchao("Int8WeightOnlyConfig"), IN * OUT + OUT * (4 + 1)),
    "int8 of activations": (torchao("Int8DynamicActivationInt8WeightConfig"), IN * OUT + OUT * (4 + 1)),
    "float8": (torchao("Float8WeightOnlyConfig"), IN * OUT + OUT * 4),
    "4 bits": (four_bit(False), IN * OUT // 2 + SCALES * 4 + 16 * 4),
    "4 bits, scales too": (four_bit(True), IN * OUT // 2 + SCALES + SCALES // 256 * 4 + 256 * 4 + 16 * 4 + 4),
    "GGUF": (gguf, IN * OUT // 32 * 34),
    "8 bits": (eight_bit, IN * OUT + OUT * 4),
}
"""How each is made, and the bytes of its weight by hand: elements, scales, tables and offsets."""


def call_of(module: torch.nn.Module, device: str, rows: int = ROWS) -> Call:
    trace = dry_run(open_pipeline(module), {"input": torch.zeros(rows, IN, dtype=DTYPE)}, device)
    return next(call for call in trace.calls if call.component)


@pytest.mark.parametrize("case", CASES)
def test_bytes(case: str) -> None:
    make, expected = CASES[case]
    module = make()
    twin = open_pipeline(module)
    for pipe in (twin.pipe, open_pipeline(module).pipe):
        (component,) = measure(pipe).components
        assert {w.name: w.nbytes for w in component.weights} == {"0.weight": expected, "0.bias": OUT * 2}
    assert sum(t.nbytes for t in inner_tensors(module.get_parameter("0.weight"))) == expected


@pytest.mark.parametrize("case", CASES)
def test_a_forward_holds_what_the_real_one_does(case: str) -> None:
    module = CASES[case][0]()
    traced = call_of(module, "cpu").peak_segment.peak
    with torch.no_grad():
        _, peak = peak_of(lambda: module(torch.zeros(ROWS, IN, dtype=DTYPE)))
    given = ROWS * IN * 2
    assert traced == pytest.approx(peak - given, rel=0.002)


@pytest.mark.parametrize("nested", [False, True])
def test_4_bits_on_a_gpu(nested: bool) -> None:
    """The weight in the input's dtype, scales that were quantized twice over, and the result, in units of 512."""
    result = ROWS * OUT * 2
    made = IN * OUT * 2 + (2 * 4 * SCALES if nested else 0)
    assert call_of(four_bit(nested)(), "cuda").peak_segment.peak == result + made
    assert call_of(four_bit(nested)(), "cuda", rows=4).peak_segment.peak == 4 * OUT * 2


@pytest.mark.parametrize("case", CASES)
def test_a_dry_run_leaves_the_weights_as_they_are(case: str) -> None:
    module: Any = CASES[case][0]()
    before = state(module)
    twin = open_pipeline(module)
    measure(twin.pipe)
    dry_run(twin, {"input": torch.zeros(ROWS, IN, dtype=DTYPE)}, "cuda")
    for (ours, tensors), (theirs, later) in zip(before, state(module), strict=True):
        assert ours == theirs
        assert all(map(torch.equal, tensors, later))


def state(module: torch.nn.Module) -> list[tuple[Any, list[torch.Tensor]]]:
    """Of each weight its class and place, the names of what it and its layer hold, and copies of what is behind it."""
    (layer,) = module.children()
    return [
        ((type(p), id(p), {*vars(layer), *vars(p)}), [t.clone() for t in inner_tensors(p)]) for p in layer.parameters()
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("threshold", [6.0, 0.0])
@pytest.mark.parametrize("shape", [(ROWS, IN), (2, ROWS, IN)], ids=str)
def test_8_bits_to_the_byte(shape: tuple[int, ...], threshold: float, dtype: torch.dtype) -> None:
    """Before the first call, in which the layer takes over its weight and scales, and after it."""
    module, given = eight_bit(threshold, dtype), torch.full(shape, 0.5, dtype=dtype)
    for _ in range(2):
        twin = open_pipeline(module)
        (component,) = measure(twin.pipe).components
        assert component.size == IN * OUT + OUT * 4 + OUT * dtype.itemsize
        trace = dry_run(twin, {"input": given}, "cpu")
        with torch.no_grad():
            _, peak = peak_of(lambda: module(given.clone()))
        (call,) = (call for call in trace.calls if call.component)
        assert call.peak_segment.peak == peak - given.nbytes
        assert any("taken to reach 6" in sentence for sentence in trace.assumptions) == bool(threshold)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_8_bits_on_a_gpu(dtype: torch.dtype) -> None:
    """The input in 8 bits with its scales, its absolute values in float16, and whether each is an outlier.

    The product in int32, in float16 and in the input's dtype is no more.
    """
    given = torch.zeros(ROWS, IN, dtype=dtype)
    (call,) = (c for c in dry_run(open_pipeline(eight_bit()), {"input": given}, "cuda").calls if c.component)
    again = 0 if dtype == torch.float16 else ROWS * IN * 2
    assert call.peak_segment.peak == ROWS * IN + 512 + ROWS * IN * (2 + 1) + again
    assert call.flops == 2 * ROWS * IN * OUT


def test_outliers_take_more_than_is_said() -> None:
    """How many columns have some is not known before."""
    module, given = eight_bit(), torch.zeros(ROWS, IN, dtype=torch.float16)
    given[:, : IN // 2] = 100
    with torch.no_grad():
        _, peak = peak_of(lambda: module(given.clone()))
    said = call_of(module, "cpu").peak_segment.peak
    assert peak - given.nbytes > said + IN // 2 * (ROWS + OUT) * 2 - IN * ROWS


def test_8_bits_in_training_mode() -> None:
    module = eight_bit()
    expected = call_of(module, "cuda").peak_segment.peak
    assert call_of(module.train(), "cuda").peak_segment.peak == expected
    assert module[0].training  # type: ignore[index]


def test_8_bits_that_are_made_anew_in_each_call() -> None:
    nn = pytest.importorskip("bitsandbytes").nn
    with pytest.raises(Unsupported, match=r"model\.0\.weight is kept in float16 .* with has_fp16_weights=False"):
        open_pipeline(torch.nn.Sequential(nn.Linear8bitLt(IN, OUT)))


@pytest.mark.wide
@pytest.mark.parametrize("size", ["tiny", "medium"])
def test_a_pipeline_in_8_bits(size: str) -> None:
    found = pairs("flux", size=size, prepare=eight_bit_parts, **WITHOUT_A_DECODE)
    assert len(found) == 3
    for pair in found:
        assert abs(pair.measured - pair.traced) <= SMALL, pair


def test_4_bits_that_are_none_yet() -> None:
    nn = pytest.importorskip("bitsandbytes").nn
    with pytest.raises(Unsupported, match=r"model\.0\.weight is not quantized yet: move it to a device"):
        open_pipeline(torch.nn.Sequential(nn.Linear4bit(IN, OUT)))


class Other(torch.nn.Parameter):
    """A weight of a library that is not known."""


def test_formats_that_are_not_known() -> None:
    module = plain()
    module[0].weight = Other(module[0].weight.data)
    with pytest.raises(Unsupported, match=r"model\.0\.weight is a Other: of weights that are already quantized, those"):
        open_pipeline(module)


def int4() -> torch.nn.Module:
    """As on a CUDA device, which alone packs such weights."""
    kind = pytest.importorskip("torchao.quantization").Int4TilePackedTo4dTensor
    packed = torch.zeros(OUT // 8, 1024 // 128, 32, 4, dtype=torch.int32)
    scales = torch.zeros(1024 // 128, OUT, 2, dtype=DTYPE)
    layer = torch.nn.Linear(1024, OUT, bias=False, dtype=DTYPE)
    layer.weight = torch.nn.Parameter(kind(packed, scales, [1, 128], torch.Size([OUT, 1024])), requires_grad=False)
    return torch.nn.Sequential(layer).eval()


def of_quanto(kind: str = "qint8") -> torch.nn.Module:
    quanto = pytest.importorskip("optimum.quanto")
    made = quanto.QLinear.from_module(torch.nn.Linear(256, OUT, dtype=DTYPE), weights=getattr(quanto, kind))
    made.freeze()
    return torch.nn.Sequential(made).eval()


LACKS = {
    "int8": {"layerwise_casting", "disk"},
    "int4": {"layerwise_casting", "disk", "stream"},
    "quanto": {"layerwise_casting", "sequential", "group_offload"},
    "quanto in 4 bits": {"layerwise_casting", "sequential", "group_offload", "model_offload"},
    "4 bits": {"layerwise_casting", "sequential", "group_offload"},
    "GGUF": {"layerwise_casting", "sequential"},
    "8 bits": {"layerwise_casting", "sequential", "group_offload", "model_offload"},
}


@pytest.mark.parametrize("case", LACKS)
def test_what_the_libraries_refuse(case: str) -> None:
    own: dict[str, Callable[[], torch.nn.Module]] = {"int4": int4, "quanto": of_quanto}
    make = own.get(case) or (partial(of_quanto, "qint4") if "quanto" in case else CASES[case][0])
    (component,) = measure(open_pipeline(make()).pipe).components
    (plain,) = measure(open_pipeline(torch.nn.Sequential(torch.nn.Linear(64, 64))).pipe).components
    always = {"quantization", *(technique for technique, _ in plain.lacks)} - {"layerwise_casting"}
    assert {technique for technique, _ in component.lacks} - always == LACKS[case]


def test_diffusers_moves_int4_in_groups_but_cannot_stream_it() -> None:
    cpu, layer = torch.device("cpu"), only_layer(int4())
    group = ModuleGroup([layer], cpu, cpu, layer)
    group.onload_device = torch.device("meta")
    group.onload_()
    assert {t.device.type for t in inner_tensors(layer.weight)} == {"meta"}
    for low_cpu_mem in (False, True):
        with pytest.raises(NotImplementedError, match="is_pinned"):
            pin(only_layer(int4()), low_cpu_mem=low_cpu_mem)


def only_layer(module: torch.nn.Module) -> Any:
    (layer,) = module.children()
    return layer


def pin(layer: Any, *, low_cpu_mem: bool) -> None:
    """What diffusers' stream does before it copies a group: at once, or with `low_cpu_mem` each time."""
    cpu, stream = torch.device("cpu"), cast(Any, Stream())
    group = ModuleGroup([layer], cpu, cpu, layer, stream=stream, low_cpu_mem_usage=low_cpu_mem)
    with group._pinned_memory_tensors():
        pass


def test_accelerate_does_lose_their_scales() -> None:
    from accelerate import cpu_offload

    module = four_bit(False)()
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        cpu_offload(module, torch.device("cpu"))(torch.zeros(ROWS, IN, dtype=DTYPE))
