"""The first visible NVIDIA GPU through a fake NVML: its figures, CUDA_VISIBLE_DEVICES, MIG."""

import os
import sys

import pytest

from memplan.errors import BadInput
from memplan.facts import MIB, Gpu
from memplan.probes.machine import probe_gpu
from tests.probes.fake_drivers import Board, FakeNvml, FakeTorch

BIG, SMALL = Board(), Board("NVIDIA GeForce RTX 3060", "GPU-bbbb2222-0000", 12288, 12000, (8, 6), cores=3584)
H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture(autouse=True)
def _nothing_set_and_nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def with_boards(monkeypatch: pytest.MonkeyPatch, *boards: Board) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(boards))


def present() -> Gpu:
    gpu = probe_gpu()
    assert gpu is not None
    return gpu


# ---- its figures -----------------------------------------------------------------------------------------------------
def test_nvml_gives_name_memory_link_driver_and_the_catalogue_its_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    with_boards(monkeypatch, BIG)
    gpu = present()
    assert (gpu.name, gpu.kind, gpu.capability) == ("NVIDIA GeForce RTX 4090", "cuda", (8, 9))
    assert (gpu.total, gpu.free, gpu.held_by_others) == (24564 * MIB, 24000 * MIB, 564 * MIB)
    assert gpu.link == pytest.approx(31.5e9, rel=0.001)
    assert (gpu.link_name, gpu.driver, gpu.source) == ("PCIe 4.0 x16", "580.65.06", "nvml")
    assert gpu.bandwidth == pytest.approx(1008e9, rel=0.001)
    assert dict(gpu.rates)["bfloat16"] == pytest.approx(165.2e12, rel=0.001)


def test_nvml_alone_neither_loads_torch_nor_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml([BIG])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    present()
    assert nvml.open == 0
    assert "torch" not in sys.modules


def test_what_this_process_holds_is_free_and_what_others_hold_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with_boards(monkeypatch, Board(free=10000, processes={os.getpid(): 4000, 1: 9000, 2: None}))
    assert present().free == 14000 * MIB


def test_where_processes_are_hidden_torch_tells_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with_boards(monkeypatch, Board(free=10000, processes={os.getpid(): None}))
    monkeypatch.setitem(sys.modules, "torch", FakeTorch("cuda", own=3000))
    assert present().free == 13000 * MIB


def test_a_narrow_slot_counts_with_the_lanes_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with_boards(monkeypatch, Board(lanes_now=4))
    assert present().link_name == "PCIe 4.0 x4"


def test_a_board_without_a_link_or_a_catalogue_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    with_boards(monkeypatch, Board("NVIDIA Graphics Device", refuses=("link", "cores")))
    gpu = present()
    assert (gpu.link, gpu.link_name, gpu.rates) == (None, "", ())
    assert gpu.bandwidth == pytest.approx(10501e6 * 2 * 384 / 8)


def test_every_question_exists_in_the_real_library() -> None:
    real = pytest.importorskip("pynvml")
    asked = [name for name in vars(FakeNvml) if name.startswith(("nvml", "NVML"))]
    assert len(asked) > 20
    assert all(hasattr(real, name) for name in asked)


# ---- CUDA_VISIBLE_DEVICES --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("visible", "order", "board"),
    [
        (None, None, BIG),
        (None, "PCI_BUS_ID", SMALL),
        ("0", None, BIG),
        ("1,0", None, SMALL),
        ("1", "PCI_BUS_ID", BIG),
        (" 1 , 0", "PCI_BUS_ID", BIG),
        ("0,7", "PCI_BUS_ID", SMALL),
        ("GPU-bbbb", None, SMALL),
        ("GPU-aaaa1111-0000,GPU-bbbb", "PCI_BUS_ID", BIG),
    ],
)
def test_of_two_gpus_the_first_visible_one_counts(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, order: str | None, board: Board
) -> None:
    with_boards(monkeypatch, SMALL, BIG)
    for variable, value in (("CUDA_VISIBLE_DEVICES", visible), ("CUDA_DEVICE_ORDER", order)):
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert present().name == board.name


@pytest.mark.parametrize("visible", ["", "-1", "-1,0"])
def test_hidden_gpus_are_no_gpus(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    with_boards(monkeypatch, BIG)
    monkeypatch.setitem(sys.modules, "torch", FakeTorch("cuda", "wrongly asked", 1, 1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert probe_gpu() is None


@pytest.mark.parametrize("visible", ["2", "2,0", "GPU-cccc", "MIG-5", "all"])
def test_a_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    with_boards(monkeypatch, SMALL, BIG)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(BadInput, match=f"names {visible.partition(',')[0]}.*unset it"):
        probe_gpu()


@pytest.mark.parametrize(
    ("visible", "index", "board"), [(None, 0, BIG), (None, 1, SMALL), ("1,0", 1, BIG), ("GPU-bbbb,GPU-aaaa", 1, BIG)]
)
def test_a_device_may_be_named_by_its_number(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, index: int, board: Board
) -> None:
    with_boards(monkeypatch, SMALL, BIG)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu = probe_gpu(index)
    assert gpu is not None
    assert gpu.name == board.name


@pytest.mark.parametrize(("visible", "count"), [(None, 2), ("1", 1), ("0,-1,1", 1)])
def test_a_number_beyond_them_is_an_error(monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int) -> None:
    with_boards(monkeypatch, SMALL, BIG)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(BadInput, match=f"no device cuda:2: {count} visible here"):
        probe_gpu(2)


# ---- MIG -------------------------------------------------------------------------------------------------------------
def split_board() -> Board:
    first = Board(f"{H100} MIG 1g.10gb", "MIG-1111", 9856, 9800, (9, 0), slices=1, numbers=(7, 0))
    second = Board(f"{H100} MIG 3g.40gb", "MIG-3333", 40448, 40000, (9, 0), slices=3, numbers=(2, 0))
    return Board(H100, "GPU-dddd", 81559, 80000, (9, 0), generation=5, instances=[first, second])


@pytest.mark.parametrize("visible", ["MIG-3333", "MIG-GPU-dddd/2/0", "MIG-GPU-dddd/2/0,MIG-GPU-dddd/7/0"])
def test_a_mig_instance_has_its_share_of_memory_bandwidth_and_compute(
    monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    with_boards(monkeypatch, BIG, split_board())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu = present()
    assert (gpu.name, gpu.total, gpu.link_name) == (f"{H100} MIG 3g.40gb", 40448 * MIB, "PCIe 5.0 x16")
    assert gpu.bandwidth == pytest.approx(3352e9 * 40448 / 81559)
    assert dict(gpu.rates)["bfloat16"] == pytest.approx(989.4e12 * 3 / 7)


@pytest.mark.parametrize(
    "visible", ["MIG-GPU-dddd/3/0", "MIG-GPU-dddd/2/1", "MIG-GPU-dddd/2", "MIG-GPU-aaaa1111-0000/2/0"]
)
def test_a_mig_instance_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    with_boards(monkeypatch, BIG, split_board())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(BadInput, match=f"names {visible}, but this machine has no such MIG instance"):
        probe_gpu()


def test_a_split_board_is_its_first_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    with_boards(monkeypatch, split_board())
    assert present().total == 9856 * MIB


def test_a_board_split_into_nothing_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_boards(monkeypatch, Board(instances=[]))
    assert probe_gpu() is None
