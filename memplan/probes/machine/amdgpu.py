"""What the Linux driver of AMD GPUs tells about a device beside what torch does: its link and where its memory is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memplan.catalogue.gpus import pcie_name, pcie_rate

_GENERATIONS = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}
"""PCIe generation by GT/s, as sysfs writes them."""


def link(properties: Any, root: Path = Path("/")) -> tuple[float | None, str]:
    """Bytes/s of the slowest part of the way to the host, and its name; (None, "") where sysfs does not tell.

    A card has a switch of its own, behind which its GPU always has the full link: the bridges above it count too.
    """
    address = f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
    device = (root / "sys/bus/pci/devices" / address).resolve()
    parts = [part for folder in (device, *device.parents) if (part := _link(folder))]
    generation, lanes = min(parts, key=lambda part: pcie_rate(*part) or 0, default=(0, 0))
    return (pcie_rate(generation, lanes), pcie_name(generation, lanes)) if generation else (None, "")


def carved_out(total: int, root: Path = Path("/")) -> bool:
    """Whether `total` bytes of an integrated GPU are memory that the firmware keeps from the host.

    The driver calls that VRAM; the host's own memory that it lends to the GPU is not counted there.
    """
    return any(size >= 0.9 * total for size in _vram(root))


def _vram(root: Path) -> Iterator[int]:
    for file in root.glob("sys/class/drm/card*/device/mem_info_vram_total"):
        yield int(file.read_text("ascii"))


def _link(folder: Path) -> tuple[int, int] | None:
    """Generation and lanes of one PCIe port. An idle GPU lowers its speed, so the highest counts."""
    try:
        speed = re.match(r"[\d.]+", (folder / "max_link_speed").read_text("ascii"))
        lanes = int((folder / "current_link_width").read_text("ascii"))
    except (OSError, ValueError):
        return None
    generation = _GENERATIONS.get(speed[0]) if speed else None
    return (generation, lanes) if generation and lanes else None
