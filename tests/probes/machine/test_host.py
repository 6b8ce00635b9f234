"""The host at hand: what containers, WSL, Windows and drivers leave of it."""

import platform
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from memplan.facts import GIB, MIB
from memplan.probes.machine import host as probe
from memplan.probes.machine.cgroup import MemoryLimit
from memplan.probes.machine.host import WSL_PINNED, probe_host

WSL = "5.15.167.4-microsoft-standard-WSL2"


def with_memory(
    monkeypatch: pytest.MonkeyPatch, available: int, limit: MemoryLimit | None, own: tuple[int, int] = (0, 0)
) -> None:
    held = SimpleNamespace(rss=own[0], shared=own[1])
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: held)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * GIB, available=available))
    monkeypatch.setattr(probe, "memory_limit", lambda _: limit)


def running(monkeypatch: pytest.MonkeyPatch, system: str, release: str = "6.8.0-generic") -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "release", lambda: release)


# ---- memory ----------------------------------------------------------------------------------------------------------
def test_a_container_limits_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 50 * GIB, MemoryLimit(16 * GIB, 12 * GIB))
    host = probe_host()
    assert (host.total, host.available, host.limit, host.source) == (64 * GIB, 12 * GIB, 16 * GIB, "cgroup")


def test_a_busy_host_limits_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 4 * GIB, MemoryLimit(16 * GIB, 12 * GIB))
    host = probe_host()
    assert (host.available, host.limit, host.source) == (4 * GIB, 16 * GIB, "psutil")


def test_what_this_process_holds_is_there_for_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 50 * GIB, MemoryLimit(16 * GIB, 3 * GIB), own=(12 * GIB, 2 * GIB))
    assert probe_host().available == 13 * GIB
    with_memory(monkeypatch, 63 * GIB, None, own=(12 * GIB, 2 * GIB))
    assert probe_host().available == 64 * GIB


def test_a_tensor_of_ours_does_not_change_what_is_available() -> None:
    before = probe_host().available
    held = torch.ones(GIB, dtype=torch.uint8)
    assert abs(probe_host().available - before) < held.nbytes / 2


def test_a_host_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 50 * GIB, None)
    assert probe_host().limit is None


def test_a_system_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    host = probe_host(root=tmp_path)
    assert (host.limit, host.total) == (None, psutil.virtual_memory().total)


def test_swap_is_told_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 50 * GIB, None)
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=8 * GIB))
    host = probe_host()
    assert (host.swap, host.available) == (8 * GIB, 50 * GIB)


def test_a_system_that_does_not_tell_its_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError("no performance counters")

    monkeypatch.setattr(psutil, "swap_memory", refuse)
    assert probe_host().swap == 0


# ---- the system, and what it lets a device pin -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("system", "release", "told"),
    [
        ("Linux", "6.8.0-generic", "Linux"),
        ("Linux", WSL, "WSL"),
        ("Linux", "4.4.0-19041-Microsoft", "WSL"),
        ("Windows", "11", "Windows"),
        ("Darwin", "24.6.0", "Darwin"),
    ],
)
def test_the_system(monkeypatch: pytest.MonkeyPatch, system: str, release: str, told: str) -> None:
    running(monkeypatch, system, release)
    assert probe_host().system == told


def test_windows_lets_half_of_its_memory_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, "Windows", "11")
    with_memory(monkeypatch, 50 * GIB, None)
    assert probe_host("cuda").pinnable == 32 * GIB


@pytest.mark.parametrize("kind", ["cuda", "rocm"])
def test_wsl_lets_little_be_pinned(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    running(monkeypatch, "Linux", WSL)
    assert probe_host(kind).pinnable == WSL_PINNED < GIB


def test_nvidia_under_linux_pins_what_it_likes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    running(monkeypatch, "Linux")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64 * 1024, 64 * 1024))
    with_pages(tmp_path, "ttm", 1000)
    assert probe_host("cuda", tmp_path).pinnable is None


def with_pages(root: Path, module: str, pages: int) -> None:
    file = root / "sys/module" / module / "parameters/pages_limit"
    file.parent.mkdir(parents=True)
    file.write_text(f"{pages}\n")


@pytest.mark.parametrize("modules", [{"ttm": 4194304}, {"ttm": 1, "amdttm": 4194304}])
def test_amd_under_linux_pins_through_ttm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, modules: dict[str, int]
) -> None:
    running(monkeypatch, "Linux")
    monkeypatch.setattr("mmap.PAGESIZE", 4096)
    for module, pages in modules.items():
        with_pages(tmp_path, module, pages)
    assert probe_host("rocm", tmp_path).pinnable == 16 * GIB


def test_amd_without_ttm_tells_no_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    running(monkeypatch, "Linux")
    assert probe_host("rocm", tmp_path).pinnable is None


# ---- disk ------------------------------------------------------------------------------------------------------------
def test_free_disk_is_that_of_the_cache_even_before_it_exists(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "not" / "yet"))
    asked: list[object] = []

    def disk_usage(path: object) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=7 * GIB)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert probe_host().disk_free == 7 * GIB
    assert asked == [tmp_path]


def test_what_users_met_under_wsl_is_what_counts() -> None:
    assert WSL_PINNED == 500 * MIB
