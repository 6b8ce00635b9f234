"""What a card sustains, from its maker's figures: a share of them for each family of ops."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files

from memplan.facts import ATTENTION, CONVOLUTION, MATMUL, USUAL, Gpu, Rates

LINK = 0.8
"""The share of a PCIe link's rate that copies from pinned memory get: the rest are packet headers."""


def rates_of(gpu: Gpu | None) -> Rates:
    """The rates of a machine with this card; what its datasheet does not say is that of a usual one."""
    if gpu is None or not gpu.rates or gpu.bandwidth is None:
        return USUAL
    share = _share(gpu)
    compute = tuple(_compute(dict(gpu.rates), share))
    pinned = gpu.link * LINK if gpu.link else USUAL.pinned
    slowest = min(rate for _, _, rate in compute)
    return replace(
        USUAL,
        compute=compute,
        bandwidth=gpu.bandwidth * share["bandwidth"],
        pinned=pinned,
        to_device=min(USUAL.to_device, pinned),
        to_host=min(USUAL.to_host, pinned),
        fallback=slowest,
        source=f"the datasheet of {gpu.name}, and a usual host",
    )


def _compute(datasheet: Mapping[str, float], share: Mapping[str, float]) -> Iterator[tuple[str, str, float]]:
    """FLOP/s by family and dtype. PyTorch lets cuDNN take float32 images for tf32, and matrix products not."""
    for dtype, rate in datasheet.items():
        if dtype != "tf32":
            yield MATMUL, dtype, rate * share[MATMUL]
            yield ATTENTION, dtype, rate * share[ATTENTION]
            tf32 = datasheet.get("tf32", rate) if dtype == "float32" else rate
            yield CONVOLUTION, dtype, max(rate, tf32) * share[CONVOLUTION]


def _share(gpu: Gpu) -> Mapping[str, float]:
    shares = _shares()
    return shares.get(".".join(map(str, gpu.capability or ())), shares["other"])


@cache
def _shares() -> dict[str, dict[str, float]]:
    text = files("memplan.catalogue").joinpath("sustained.json").read_text("utf-8")
    shares: dict[str, dict[str, float]] = json.loads(text)
    return shares
