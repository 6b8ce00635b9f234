"""Stand-ins for pynvml and torch: boards, MIG instances and accelerators that exist only as figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

from memplan.facts import MIB


class NVMLError(Exception):
    """What pynvml raises."""


@dataclass
class Board:
    """One GPU as NVML shows it, sizes in MiB; `refuses` names the questions that it does not answer."""

    name: str = "NVIDIA GeForce RTX 4090"
    uuid: str = "GPU-aaaa1111-0000"
    total: int = 24564
    free: int = 24000
    capability: tuple[int, int] = (8, 9)
    generation: int = 4
    lanes: int = 16
    lanes_now: int = 16
    cores: int = 16384
    processes: dict[int, int | None] = field(default_factory=dict)
    instances: list["Board"] | None = None
    slices: int = 0
    numbers: tuple[int, int] = (0, 0)
    refuses: tuple[str, ...] = ()


class FakeNvml(ModuleType):
    """pynvml, as far as memplan asks it."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

    def __init__(self, boards: Sequence[Board], init_fails: bool = False) -> None:
        super().__init__("pynvml")
        self._boards, self._init_fails, self.open = boards, init_fails, 0

    def nvmlInit(self) -> None:
        if self._init_fails:
            raise NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self._boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:
        return self._boards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Board:
        return self._found([i for b in self._boards for i in b.instances or [] if i.uuid == uuid])

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, instance: Board) -> Board:
        return self._found([b for b in self._boards if instance in (b.instances or [])])

    def nvmlDeviceGetMigMode(self, board: Board) -> list[int]:
        if board.instances is None:
            raise NVMLError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, board: Board) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, board: Board, index: int) -> Board:
        return self._found((board.instances or [])[index : index + 1])

    def nvmlDeviceGetGpuInstanceId(self, instance: Board) -> int:
        return instance.numbers[0]

    def nvmlDeviceGetComputeInstanceId(self, instance: Board) -> int:
        return instance.numbers[1]

    def nvmlDeviceGetAttributes(self, instance: Board) -> SimpleNamespace:
        return SimpleNamespace(computeInstanceSliceCount=instance.slices)

    def nvmlDeviceGetName(self, board: Board) -> bytes:
        return self._answer(board, "name", board.name.encode())

    def nvmlDeviceGetUUID(self, board: Board) -> str:
        return board.uuid

    def nvmlDeviceGetMemoryInfo(self, board: Board) -> SimpleNamespace:
        total, free = board.total * MIB, board.free * MIB
        return self._answer(board, "memory", SimpleNamespace(total=total, free=free, used=total - free))

    def nvmlDeviceGetCudaComputeCapability(self, board: Board) -> tuple[int, int]:
        return board.capability

    def nvmlDeviceGetMaxPcieLinkGeneration(self, board: Board) -> int:
        return self._answer(board, "link", board.generation)

    def nvmlDeviceGetMaxPcieLinkWidth(self, board: Board) -> int:
        return self._answer(board, "link", board.lanes)

    def nvmlDeviceGetCurrPcieLinkWidth(self, board: Board) -> int:
        return self._answer(board, "link", board.lanes_now)

    def nvmlDeviceGetNumGpuCores(self, board: Board) -> int:
        return self._answer(board, "cores", board.cores)

    def nvmlDeviceGetMaxClockInfo(self, board: Board, which: int) -> int:
        return 2500 if which == self.NVML_CLOCK_SM else 10501

    def nvmlDeviceGetMemoryBusWidth(self, board: Board) -> int:
        return 384

    def nvmlDeviceGetComputeRunningProcesses(self, board: Board) -> list[SimpleNamespace]:
        held = {pid: None if size is None else size * MIB for pid, size in board.processes.items()}
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in held.items()]

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.65.06"

    def _answer(self, board: Board, question: str, answer: Any) -> Any:
        if question in board.refuses:
            raise NVMLError("Not Supported")
        return answer

    def _found(self, boards: list[Board]) -> Board:
        if not boards:
            raise NVMLError("Not Found")
        return boards[0]


NOWHERE = {"pci_domain_id": 0xFFFF, "pci_bus_id": 0xFF, "pci_device_id": 0x1F}
"""Where no device of the machine that runs the tests is."""


class FakeTorch(ModuleType):
    """torch with at most one accelerator: "cuda", "rocm", "xpu", "mps" or ""; sizes in MiB.

    `properties` are the device's beside those that most have; without `free` the driver keeps that figure to itself.
    """

    def __init__(
        self,
        kind: str,
        name: str = "",
        total: int = 0,
        free: int | None = 0,
        *,
        own: int = 0,
        macos: int = 15,
        **properties: Any,
    ) -> None:
        super().__init__("torch")
        usual = {"name": name, "total_memory": total * MIB, "major": 8, "minor": 6, "gcnArchName": "gfx1100"}
        intel = {"driver_version": "1.6", "has_fp16": True, "has_fp64": True, "is_integrated_gpu": False}

        def mem_get_info(_: int) -> tuple[int, int]:
            if free is None:
                raise NotImplementedError("The device doesn't support querying the available free memory.")
            return free * MIB, total * MIB

        there = SimpleNamespace(
            is_available=lambda: True,
            device_count=lambda: 1,
            is_initialized=lambda: True,
            get_device_properties=lambda _: SimpleNamespace(**usual | intel | NOWHERE | properties),
            mem_get_info=mem_get_info,
            memory_reserved=lambda _: own * MIB,
            is_macos_or_newer=lambda major, _: macos >= major,
        )
        absent = SimpleNamespace(is_available=lambda: False, is_initialized=lambda: False)
        self.float8_e4m3fn = self.float8_e5m2 = "float8"
        self.empty = self._empty
        self.version = SimpleNamespace(hip="7.0" if kind == "rocm" else None)
        self.cuda = there if kind in ("cuda", "rocm") else absent
        self.xpu = there if kind == "xpu" else absent
        self.mps = SimpleNamespace(recommended_max_memory=lambda: total * MIB)
        self.backends = SimpleNamespace(mps=there if kind == "mps" else absent)

    def _empty(self, *_: Any, **__: Any) -> None:
        """As torch 2.13 on Metal."""
        raise TypeError("Trying to convert Float8_e4m3fn to the MPS backend, which does not support that dtype.")
