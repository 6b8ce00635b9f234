"""The machine at hand where NVML cannot speak, the machine that the user names, and the host."""

import subprocess
import sys
from types import ModuleType
from typing import Any

import psutil
import pytest

from memplan.errors import BadInput
from memplan.facts import GIB, MIB, Gpu
from memplan.probes.machine import probe_gpu, probe_machine
from tests.probes.fake_drivers import Board, FakeNvml, FakeTorch


def install(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)


def present() -> Gpu:
    gpu = probe_gpu()
    assert gpu is not None
    return gpu


# ---- torch -----------------------------------------------------------------------------------------------------------
class _Broken(FakeNvml):
    def nvmlDeviceGetCudaComputeCapability(self, board: Board) -> tuple[int, int]:
        raise self.NVMLError("GPU is lost")


@pytest.mark.parametrize(
    "nvml",
    [None, FakeNvml([], init_fails=True), FakeNvml([]), FakeNvml([Board(refuses=("memory",))]), _Broken([Board()])],
    ids=["no module", "no driver", "no device", "no memory figure", "lost midway"],
)
def test_torch_is_asked_where_nvml_cannot_tell(monkeypatch: pytest.MonkeyPatch, nvml: Any) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    install(monkeypatch, FakeTorch("cuda", "NVIDIA GeForce RTX 3090", 24259, 20000, own=1000))
    gpu = present()
    assert (gpu.source, gpu.kind, gpu.capability) == ("torch", "cuda", (8, 6))
    assert (gpu.total, gpu.free) == (24259 * MIB, 21000 * MIB)
    assert gpu.bandwidth == pytest.approx(936.2e9)


@pytest.mark.parametrize("torch", [None, FakeTorch("")], ids=["no torch", "no device"])
def test_a_machine_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch, torch: Any) -> None:
    install(monkeypatch, FakeNvml([], init_fails=True))
    monkeypatch.setitem(sys.modules, "torch", torch)
    machine = probe_machine(reserve=1)
    assert machine.gpu is None
    assert machine.vram == 0
    assert machine.ram > 0


def test_the_module_loads_neither_torch_nor_pynvml() -> None:
    code = "import sys, memplan.probes.machine; sys.exit(bool({'torch', 'pynvml', 'diffusers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- what the user says ----------------------------------------------------------------------------------------------
@pytest.fixture
def _untouchable_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "torch", FakeTorch("cuda", "must not be asked", 1, 1))


@pytest.mark.usefixtures("_untouchable_drivers")
class TestWhatTheUserSays:
    """None of it looks at the GPU that is here."""

    def test_bare_memory(self) -> None:
        machine = probe_machine(vram=12, ram=32)
        assert machine.gpu == Gpu("12 GiB card", 12 * GIB, 12 * GIB, source="user")
        assert (machine.host.total, machine.ram, machine.host.source) == (32 * GIB, 32 * GIB, "user")

    def test_a_named_card_beside_the_memory_of_this_host(self) -> None:
        machine = probe_machine(gpu="rtx 4070")
        assert machine.gpu
        assert (machine.gpu.name, machine.gpu.source) == ("NVIDIA GeForce RTX 4070", "catalogue")
        assert machine.gpu.free == machine.gpu.total == 12282 * MIB
        assert machine.host.total == psutil.virtual_memory().total

    def test_a_named_card_with_other_memory(self) -> None:
        machine = probe_machine(gpu="RTX 4090", vram=48)
        assert machine.gpu
        assert machine.gpu.total == machine.gpu.free == 48 * GIB
        assert machine.gpu.capability == (8, 9)
        assert (machine.gpu.resized, machine.gpu.namesakes) == (True, ())

    def test_a_name_of_several_cards(self) -> None:
        gpu = probe_machine(gpu="RTX 3080").gpu
        assert gpu
        assert (gpu.resized, gpu.namesakes) == (False, ("NVIDIA GeForce RTX 3080 12 GB",))

    @pytest.mark.parametrize(("vram", "ram"), [(None, 64), (64, None), (64, 64)])
    def test_unified_memory_is_the_host_memory(self, vram: float | None, ram: float | None) -> None:
        machine = probe_machine("M2 Max", vram, ram)
        assert machine.gpu
        assert machine.gpu.unified
        assert machine.gpu.total == machine.host.total == 64 * GIB
        assert machine.gpu.free == 48 * GIB

    def test_a_reserve_is_kept_free(self) -> None:
        assert probe_machine(vram=12, reserve=1.5).vram == 10.5 * GIB

    @pytest.mark.parametrize("reserve", [12, 20])
    def test_a_reserve_that_leaves_nothing(self, reserve: float) -> None:
        with pytest.raises(
            BadInput, match=f"reserve of {reserve} GiB .* 12.00 GiB that 12 GiB card .* less than 12.00"
        ):
            probe_machine(vram=12, reserve=reserve)

    @pytest.mark.parametrize("size", [0, -3, float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("option", ["vram", "ram"])
    def test_sizes_that_are_none(self, option: str, size: float) -> None:
        with pytest.raises(BadInput, match=f"{option} is {size:g} GiB.*Give GiB above 0"):
            probe_machine(**{option: size})  # type: ignore[arg-type]

    @pytest.mark.parametrize("reserve", [-1, float("nan"), float("inf")])
    def test_reserves_that_are_none(self, reserve: float) -> None:
        with pytest.raises(BadInput, match=r"reserve is .*Give 0 or more"):
            probe_machine(vram=12, reserve=reserve)
