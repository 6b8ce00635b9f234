"""AMD, Intel and Apple through fakes of torch's interfaces and of sysfs."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memplan.errors import BadInput
from memplan.facts import GIB, MIB, Gpu
from memplan.probes.machine import torch_gpu as probe
from memplan.probes.machine.amdgpu import carved_out, link
from memplan.probes.machine.torch_gpu import gpu_by_torch
from tests.probes.fake_drivers import FakeTorch

CARD = {"pci_domain_id": 0, "pci_bus_id": 3, "pci_device_id": 0}
XTX = partial(FakeTorch, "rocm", "AMD Radeon RX 7900 XTX", 24560, 24000)
STRIX = partial(FakeTorch, "rocm", "AMD Radeon 8060S Graphics", 63966, 122880, gcnArchName="gfx1151", is_integrated=1)
B580 = partial(FakeTorch, "xpu", "Intel(R) Arc(TM) B580 Graphics", 12216)


def found(monkeypatch: pytest.MonkeyPatch, torch: FakeTorch) -> Gpu:
    monkeypatch.setitem(sys.modules, "torch", torch)
    gpu = gpu_by_torch()
    assert gpu is not None
    return gpu


def test_a_number_beyond_the_devices_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", B580())
    with pytest.raises(BadInput, match="no device xpu:1: 1 visible here"):
        gpu_by_torch(1)


# ---- AMD -------------------------------------------------------------------------------------------------------------
def test_rocm_tells_memory_and_target(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = found(monkeypatch, XTX(own=1000, gcnArchName="gfx1100:sramecc-:xnack-"))
    assert (gpu.name, gpu.kind, gpu.arch, gpu.capability) == ("AMD Radeon RX 7900 XTX", "rocm", "gfx1100", None)
    assert (gpu.total, gpu.free, gpu.held_by_others) == (24560 * MIB, 24560 * MIB, 0)
    assert (gpu.unified, gpu.lacks) == (False, ())
    assert "float16" in dict(gpu.rates)


def slot(root: Path, *ports: tuple[str, str, int]) -> None:
    """PCI ports one below the other, the GPU last: address, speed as sysfs writes it, lanes."""
    folder = root / "sys/devices/pci0000:00"
    for address, speed, lanes in ports:
        folder = folder / address
        folder.mkdir(parents=True)
        (folder / "max_link_speed").write_text(f"{speed}\n")
        (folder / "current_link_width").write_text(f"{lanes}\n")
    devices = root / "sys/bus/pci/devices"
    devices.mkdir(parents=True)
    (devices / ports[-1][0]).symlink_to(folder)


def card() -> Any:
    return XTX(**CARD).cuda.get_device_properties(0)


def test_a_card_has_the_link_of_its_slot_not_of_its_own_switch(tmp_path: Path) -> None:
    slot(
        tmp_path,
        ("0000:00:01.1", "32.0 GT/s PCIe", 4),
        ("0000:01:00.0", "16.0 GT/s PCIe", 4),
        ("0000:02:00.0", "16.0 GT/s PCIe", 16),
        ("0000:03:00.0", "16.0 GT/s PCIe", 16),
    )
    rate, name = link(card(), tmp_path)
    assert name == "PCIe 4.0 x4"
    assert rate == pytest.approx(7.88e9, rel=0.001)


@pytest.mark.parametrize(("speed", "lanes"), [("Unknown", 16), ("16.0 GT/s PCIe", 0)])
def test_a_port_that_does_not_tell_is_passed_over(tmp_path: Path, speed: str, lanes: int) -> None:
    slot(tmp_path, ("0000:01:00.0", "8.0 GT/s PCIe", 8), ("0000:03:00.0", speed, lanes))
    assert link(card(), tmp_path)[1] == "PCIe 3.0 x8"


def test_without_sysfs_the_catalogue_gives_the_link(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert link(card(), tmp_path) == (None, "")
    assert found(monkeypatch, XTX()).link_name == "PCIe 4.0 x16"


def test_what_sysfs_tells_of_the_link_is_the_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slot(tmp_path, ("0000:03:00.0", "8.0 GT/s PCIe", 8))
    monkeypatch.setattr(probe, "link", partial(link, root=tmp_path))
    gpu = found(monkeypatch, XTX(**CARD))
    assert gpu.link_name == "PCIe 3.0 x8"
    assert gpu.link == pytest.approx(7.88e9, rel=0.001)


@pytest.mark.parametrize(("vram", "unified"), [(512, True), (63966, False), (65536, False)])
def test_an_integrated_gpu_shares_the_hosts_memory_unless_the_firmware_carved_it_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vram: int, unified: bool
) -> None:
    device = tmp_path / "sys/class/drm/card1/device"
    device.mkdir(parents=True)
    (device / "mem_info_vram_total").write_text(f"{vram * MIB}\n")
    monkeypatch.setattr(probe, "carved_out", partial(carved_out, root=tmp_path))
    gpu = found(monkeypatch, STRIX())
    assert (gpu.unified, gpu.arch) == (unified, "gfx1151")
    assert gpu.free == gpu.total == 63966 * MIB  # this driver tells more free than there is


# ---- Intel -----------------------------------------------------------------------------------------------------------
def test_intel_tells_memory_driver_and_what_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = found(monkeypatch, B580(free=11000, own=500))
    assert (gpu.name, gpu.kind, gpu.capability) == ("Intel(R) Arc(TM) B580 Graphics", "xpu", None)
    assert (gpu.total, gpu.free, gpu.driver) == (12216 * MIB, 11500 * MIB, "1.6")
    assert (gpu.unified, gpu.lacks) == (False, ())
    assert gpu.bandwidth == pytest.approx(456e9)


def test_a_driver_that_keeps_free_memory_to_itself_has_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = found(monkeypatch, B580(free=None))
    assert gpu.free == gpu.total == 12216 * MIB


def test_an_integrated_intel_gpu_without_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = FakeTorch("xpu", "Intel(R) Arc(TM) Graphics", 28000, 20000, has_fp64=False, is_integrated_gpu=True)
    gpu = found(monkeypatch, torch)
    assert (gpu.unified, gpu.lacks) == (True, ("float64",))


# ---- Apple -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("macos", "lacks"), [(15, ("float64",)), (14, ("float64",)), (13, ("float64", "bfloat16"))])
def test_apple_shares_one_pool_and_lacks_dtypes(
    monkeypatch: pytest.MonkeyPatch, macos: int, lacks: tuple[str, ...]
) -> None:
    gpu = found(monkeypatch, FakeTorch("mps", total=49152, macos=macos))
    assert (gpu.kind, gpu.unified, gpu.lacks) == ("mps", True, (*lacks, "float8_e4m3fn", "float8_e5m2"))
    assert gpu.total == gpu.free == 48 * GIB
