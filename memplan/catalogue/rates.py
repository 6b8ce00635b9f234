"""What a card sustains, from its maker's figures.

Diffusion pipelines reach a share of a datasheet's rate that depends on the family of ops and on the generation of the
card, and elementwise ops that no compiler has fused a share of the memory's, by generation too: a large cache serves
some of them, and a fast memory is hard to keep busy. The shares in `sustained.json` and the seconds that a kernel takes
beside its work (`Rates.kernel`) were fitted, together and then rounded, to 61 published calls that move no weights, or
next to none: FLUX.1, SDXL, CogVideoX, LTX-Video, Wan and VAEs, some of them tiled, sliced or compiled, on seven cards
of four generations (`tests/accuracy/latencies.csv`; SDXL's VAE alone was left out). They are seventeen numbers for all
of them, drawn towards plausible ones, and none belongs to a row. Generations without a published figure have the share
"others": a guess.

Attention has a share of its own in each generation, for its kernels were written for some and not for others. Kernels
alone were measured so: flash attention 2 reaches 0.33 to 0.37 of an H100's rate (charts of the FlashAttention-3
paper), 0.44 of an A100's in the median of many sizes (pytorch/pytorch pull request 192799) and 0.74 of an RTX A5000's
(gpu-mode/ring-attention issue 10); PyTorch's memory-efficient kernel, with heads of 512, 0.51 of an RTX 4090's and 0.49
of an L20's (xlite-dev/ffpa-attn). cuBLAS reaches 0.9 of an L20's rate in large products (the README of
CUDA-Learn-Notes' hgemm), more than the 0.64 of its generation here.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from memplan.facts import ATTENTION, CONVOLUTION, EFFICIENT, USUAL, Gpu, Rates

LINK = 0.8
"""The share of a PCIe link's rate that copies from pinned memory are taken to get: the rest are packet headers."""
TENSOR_CORES = ("float16", "bfloat16", "float8_e4m3fn", "int8", "tf32")
"""Dtypes whose rate is that of tensor cores, to which the shares apply; float32 units are taken to be kept busy."""


def rates_of(gpu: Gpu | None) -> Rates:
    """The rates of a machine with this card; what its datasheet does not say is that of a usual one."""
    if gpu is None or not gpu.rates or gpu.bandwidth is None:
        return USUAL
    compute = tuple(_compute(gpu))
    pinned = gpu.link * LINK if gpu.link else USUAL.pinned
    slowest = min(rate for _, _, rate in compute)
    return replace(
        USUAL,
        compute=compute,
        bandwidth=gpu.bandwidth * _sustained()["bandwidth"],
        eager=_of_generation(gpu, _sustained()["eager"]),
        pinned=pinned,
        to_device=min(USUAL.to_device, pinned),
        to_host=min(USUAL.to_host, pinned),
        fallback=slowest,
        source=f"the datasheet of {gpu.name}, and a usual host",
    )


def _compute(gpu: Gpu) -> Iterator[tuple[str, str, float]]:
    """FLOP/s by family and dtype. PyTorch lets cuDNN take float32 images for tf32, and matrix products not."""
    datasheet, share = dict(gpu.rates), _shares(gpu)
    for dtype in datasheet:
        if dtype != "tf32":
            for family in share:
                tf32 = family == CONVOLUTION and dtype == "float32" and "tf32" in datasheet
                used = "tf32" if tf32 else dtype
                yield family, dtype, datasheet[used] * (share[family] if used in TENSOR_CORES else 1.0)


def _shares(gpu: Gpu) -> Mapping[str, float]:
    """The share of its rates that tensor cores of this generation sustain, by family of ops."""
    data = _sustained()
    factor = _of_generation(gpu, data["generations"])
    flash = _of_generation(gpu, data["attention"])
    dense = {family: share * factor for family, share in data["shares"].items()}
    return dense | {ATTENTION: flash, EFFICIENT: flash * data["efficient"]}


def _of_generation(gpu: Gpu, figures: Mapping[str, float]) -> float:
    """The figure of this card's generation, or that of others."""
    known = ".".join(map(str, gpu.capability or ())) if gpu.kind == "cuda" else ""
    return figures.get(known, figures["others"])


@cache
def _sustained() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(files("memplan.catalogue").joinpath("sustained.json").read_text("utf-8"))
    return data
