"""The GPUs people own or rent, as their makers describe them: memory, bandwidth, dense rates and host link."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from memplan.facts import GIB, MIB, Gpu

_LANE = {
    1: 2.5e9 * 8 / 10,
    2: 5e9 * 8 / 10,
    3: 8e9 * 128 / 130,
    4: 16e9 * 128 / 130,
    5: 32e9 * 128 / 130,
    6: 64e9 * 242 / 256,
}
"""Bits/s of one PCIe lane in one direction: the transfer rate less its line code (8b/10b, 128b/130b, 242B of 256B)."""


@dataclass(frozen=True)
class Card:
    """One card of one memory size.

    `memory` is its nominal size in bytes, `total` what the driver reports where that is known, and `free` what one
    process may use of it. `bandwidth` is in bytes/s; `rates` are dense FLOP/s by dtype, on tensor cores with float32
    accumulation where it has them; `pcie` is generation and lanes; `arch` and `lacks` are as in `Gpu`. A `default` card
    is meant when a name fits several. `sources` are the pages with its own figures and with its architecture's.
    """

    name: str
    kind: str
    memory: int
    total: int
    free: int
    bandwidth: float
    rates: tuple[tuple[str, float], ...]
    sources: tuple[str, ...]
    capability: tuple[int, int] | None = None
    pcie: tuple[int, int] | None = None
    unified: bool = False
    arch: str = ""
    lacks: tuple[str, ...] = ()
    default: bool = False

    def gpu(self) -> Gpu:
        """This card in a machine where nothing else uses it."""
        return Gpu(
            name=self.name,
            total=self.total,
            free=self.free,
            kind=self.kind,
            capability=self.capability,
            bandwidth=self.bandwidth,
            rates=self.rates,
            link=pcie_rate(*self.pcie) if self.pcie else None,
            link_name=pcie_name(*self.pcie) if self.pcie else "",
            source="catalogue",
            unified=self.unified,
            arch=self.arch,
            lacks=self.lacks,
        )


def pcie_rate(generation: int, lanes: int) -> float | None:
    """Bytes/s of a PCIe link in one direction, less its line code but not its packet headers; None where unknown.

    Generation 4 with 16 lanes: 16 GT/s x 128/130 x 16 lanes / 8 bits = 31.5 GB/s.
    """
    return _LANE[generation] * lanes / 8 if generation in _LANE else None


def pcie_name(generation: int, lanes: int) -> str:
    """The link as people write it, e.g. "PCIe 4.0 x16"."""
    return f"PCIe {generation}.0 x{lanes}"


# ---- the data --------------------------------------------------------------------------------------------------------
@cache
def cards() -> tuple[Card, ...]:
    """Every card of `gpus.json`; one listed with several memory sizes is as many cards."""
    data = json.loads(files("memplan.catalogue").joinpath("gpus.json").read_text("utf-8"))
    return tuple(
        _card(data["families"][entry["family"]], entry, size, several=len(sizes) > 1)
        for entry in data["cards"]
        for sizes in [entry["memory_gib"] if isinstance(entry["memory_gib"], list) else [entry["memory_gib"]]]
        for size in sizes
    )


def _card(family: Mapping[str, Any], entry: Mapping[str, Any], size: int, *, several: bool) -> Card:
    """The card of `size` GiB; what the entry leaves open is its family's."""
    facts = {**family, **entry}
    total = facts["reported_mib"] * MIB if "reported_mib" in facts else size * GIB
    return Card(
        name=f"{facts['name']} {size} GB" if several else facts["name"],
        kind=facts["kind"],
        memory=size * GIB,
        total=total,
        free=int(total * facts.get("usable", 1)),
        bandwidth=facts["bandwidth_gb_s"] * 1e9,
        rates=_rates(facts),
        sources=(entry["source"], family["source"]),
        capability=_pair(facts.get("capability")),
        pcie=_pair(facts.get("pcie")),
        unified=facts.get("unified", False),
        arch=facts.get("arch", ""),
        lacks=tuple(facts.get("lacks", ())),
        default=facts.get("default", False),
    )


def _rates(facts: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """FLOP/s by dtype: as published, or from the float32 rate by the operations per clock of the architecture."""
    tflops = facts.get("tflops") or {
        "float32": facts["float32_tflops"],
        **{dtype: facts["float32_tflops"] * ratio for dtype, ratio in facts["per_float32"].items()},
    }
    return tuple((dtype, rate * 1e12) for dtype, rate in tflops.items())


def _pair(values: list[int] | None) -> tuple[int, int] | None:
    return (values[0], values[1]) if values else None
