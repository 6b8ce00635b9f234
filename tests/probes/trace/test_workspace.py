"""Workspace of single ops: the CPU's as measured on this CPU, cuDNN's by its rules."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._prims_common import suggest_memory_format
from torch.nn import functional as F

from memplan.probes.trace.workspace import SPLIT_ABOVE, channels_last, cudnn_workspace, size_of
from tests.accuracy.measured import peak_of
from tests.probes.traced import Traced

LAST = torch.channels_last
TOLERANCE = 0.03
"""The filters' padding and a few KiB of scratch are left out; without the rules these are off by 40 % and more."""


def image(channels: int, size: int = 64, batch: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(batch, channels, size, size, dtype=dtype)


def filters(out: int, channels: int, kernel: int) -> torch.Tensor:
    return torch.randn(out, channels, kernel, kernel)


# ---- the CPU, against torch.profiler ---------------------------------------------------------------------------------
CONVOLUTIONS: dict[str, tuple[torch.Tensor, torch.Tensor, dict[str, Any]]] = {
    "blocks of channels": (image(32), filters(32, 32, 3), {"padding": 1}),
    "more channels out": (image(16), filters(48, 16, 3), {"padding": 1}),
    "fewer channels out": (image(48), filters(16, 48, 3), {"padding": 1}),
    "channels to be padded": (image(20), filters(20, 20, 3), {"padding": 1}),
    "three channels in": (image(3), filters(32, 3, 3), {"padding": 1}),
    "less than a block of channels in": (image(7), filters(7, 7, 3), {"padding": 1}),
    "less than a block of channels in, a stride": (image(7), filters(32, 7, 3), {"stride": 2, "padding": 1}),
    "three channels out": (image(32), filters(3, 32, 3), {"padding": 1}),
    "one by one": (image(64), filters(32, 64, 1), {}),
    "groups": (image(48), filters(48, 6, 3), {"padding": 1, "groups": 8}),
    "groups, one by one": (image(48), filters(48, 6, 1), {"groups": 8}),
    "groups, one by one, channels last": (image(48).to(memory_format=LAST), filters(48, 6, 1), {"groups": 8}),
    "a stride": (image(32), filters(32, 32, 3), {"stride": 2, "padding": 1}),
    "a batch": (image(32, batch=3), filters(32, 32, 3), {"padding": 1}),
    "channels last": (image(32).to(memory_format=LAST), filters(32, 32, 3), {"padding": 1}),
    "channels last, a batch": (image(32, batch=2).to(memory_format=LAST), filters(64, 32, 3), {"padding": 1}),
    "volumes": (torch.randn(1, 16, 5, 32, 32), torch.randn(16, 16, 3, 3, 3), {"padding": 1}),
    "dilated volumes": (torch.randn(1, 16, 9, 24, 24), torch.randn(16, 16, 3, 3, 3), {"padding": 2, "dilation": 2}),
}


WITHOUT_WORKSPACE = ("one by one",)
"""With a single thread, PyTorch makes it a matrix product."""


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_cpu_convolution_holds_what_was_measured(name: str) -> None:
    x, w, settings = CONVOLUTIONS[name]
    convolve = F.conv3d if x.dim() == 5 else F.conv2d
    with torch.no_grad():
        _, measured = peak_of(lambda: convolve(x, w, **settings))
    traced = Traced(lambda a, b: convolve(a, b, **settings), x, w, device="cpu").peak
    assert traced == pytest.approx(measured, rel=TOLERANCE)
    assert traced > size_of(convolve(x, w, **settings)) or w.shape[-1] == 1  # which one thread does without any


@pytest.mark.parametrize("rows", [torch.randn(64, 96), torch.randn(96, 64).t()], ids=["rows", "columns"])
def test_a_layer_norm_copies_what_is_not_contiguous(rows: torch.Tensor) -> None:
    with torch.no_grad():
        _, measured = peak_of(lambda: F.layer_norm(rows, rows.shape[-1:]))
    traced = Traced(lambda x: F.layer_norm(x, x.shape[-1:]), rows, device="cpu").peak
    assert traced == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("queries", "keys", "dim"), [(1000, 1000, 64), (768, 100, 8), (500, 700, 16), (17, 33, 16)])
def test_attention_holds_blocks_of_scores(queries: int, keys: int, dim: int, dtype: torch.dtype) -> None:
    q, k = torch.randn(1, 2, queries, dim, dtype=dtype), torch.randn(1, 2, keys, dim, dtype=dtype)
    with torch.no_grad():
        _, measured = peak_of(lambda: F.scaled_dot_product_attention(q, k, k))
    assert Traced(F.scaled_dot_product_attention, q, k, k, device="cpu").peak == measured


# ---- cuDNN, by its rules ---------------------------------------------------------------------------------------------
def cudnn(x: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> int:
    return cudnn_workspace((x, w), out)


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16, last: bool = False) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=LAST if last else torch.contiguous_format)


def test_half_precision_goes_through_copies_in_and_out() -> None:
    x, w, out = meta(2, 32, 64, 64), meta(16, 32, 3, 3), meta(2, 16, 64, 64)
    assert cudnn(x, w, out) == size_of(x) + size_of(w) + size_of(out)


def test_half_precision_in_channels_last_needs_its_filter_only() -> None:
    x, w, out = meta(2, 32, 64, 64, last=True), meta(16, 32, 3, 3), meta(2, 16, 64, 64, last=True)
    assert cudnn(x, w, out) == size_of(w)


@pytest.mark.parametrize("last", [False, True])
def test_float32_holds_one_copy_of_its_result(last: bool) -> None:
    full = torch.float32
    x, out = meta(2, 32, 64, 64, dtype=full, last=last), meta(2, 16, 64, 64, dtype=full, last=last)
    w = meta(16, 32, 3, 3, dtype=full)
    assert cudnn(x, w, out) == size_of(out) + (size_of(w) if last else 0)


def test_an_image_of_another_layout_is_made_contiguous_first() -> None:
    x = meta(2, 64, 64, 32).permute(0, 3, 2, 1)[:, :, ::2]
    w, out = meta(16, 32, 3, 3), meta(2, 16, 32, 64)
    assert not channels_last(x)
    assert not x.is_contiguous()
    assert cudnn(x, w, out) == 2 * size_of(x) + size_of(w) + size_of(out)


def test_beyond_32_bits_a_batch_is_split() -> None:
    x, w, out = meta(16, 256, 1024, 1024), meta(256, 256, 3, 3), meta(16, 256, 1024, 1024)
    assert x.numel() > SPLIT_ABOVE
    assert cudnn(x, w, out) == size_of(w) + 2 * (size_of(x) + size_of(out)) // 16


# ---- formats ---------------------------------------------------------------------------------------------------------
LAYOUTS = {
    "contiguous": torch.zeros(2, 3, 4, 5),
    "channels last": torch.zeros(2, 3, 4, 5).to(memory_format=LAST),
    "channels last, a batch of one": torch.zeros(1, 3, 4, 5).to(memory_format=LAST),
    "one channel": torch.zeros(2, 1, 4, 5),
    "one pixel": torch.zeros(2, 3, 1, 1),
    "permuted": torch.zeros(2, 4, 5, 3).permute(0, 3, 1, 2),
    "a slice": torch.zeros(2, 6, 4, 5).to(memory_format=LAST)[:, ::2],
    "rows swapped": torch.zeros(2, 3, 4, 5).transpose(2, 3),
    "the stride of a VAE's attention": torch.zeros(1, 16, 6, 6).as_strided((1, 16, 6, 6), (16, 1, 96, 16)),
    "a stride of zero": torch.zeros(1).expand(2, 3, 4, 5),
    "volume": torch.zeros(2, 3, 2, 4, 5),
    "volume, channels last": torch.zeros(2, 3, 2, 4, 5).to(memory_format=torch.channels_last_3d),
    "rows": torch.zeros(2, 3),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_channels_last_is_what_torch_would_choose(layout: str) -> None:
    tensor = LAYOUTS[layout]
    chosen = suggest_memory_format(tensor) if tensor.dim() in (4, 5) else None
    assert channels_last(tensor) == (chosen in (LAST, torch.channels_last_3d))


# ---- arithmetic -----------------------------------------------------------------------------------------------------
def square(dtype: torch.dtype) -> torch.Tensor:
    return torch.ones(256, 256, dtype=dtype)


@pytest.mark.parametrize(
    ("function", "first", "second"),
    [
        (torch.mul, square(torch.bfloat16), square(torch.int8)),
        (torch.mul, square(torch.int32), torch.ones(256, 1)),
        (torch.div, square(torch.int32), square(torch.int32)),
        (torch.add, square(torch.float32), torch.ones((), dtype=torch.float16)),
        (torch.sub, square(torch.float32), square(torch.float32)),
        (torch.Tensor.mul_, square(torch.bfloat16), torch.ones(256, 1)),
    ],
)
def test_a_cpu_casts_before_it_computes(
    function: Callable[..., torch.Tensor], first: torch.Tensor, second: torch.Tensor
) -> None:
    with torch.no_grad():
        _, measured = peak_of(lambda: function(first, second))
    assert Traced(function, first, second, device="cpu").peak == measured


def test_a_gpu_does_not() -> None:
    found = Traced(torch.mul, square(torch.bfloat16), square(torch.int8), device="cuda")
    assert found.peak == 256 * 256 * 2
