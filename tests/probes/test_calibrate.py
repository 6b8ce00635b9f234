"""What is measured of a machine: for real on this CPU with tiny sizes, on a device where there is one."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from memplan.faces import store
from memplan.facts import (
    COMPUTE,
    CONTEXT,
    GIB,
    LIMITS,
    MATMUL,
    MIB,
    ON_HOST,
    PINNED_BLOCK,
    WORKSPACE,
    Calibration,
    Gpu,
    Reading,
)
from memplan.probes import calibrate
from memplan.probes.calibrate import compute, disk, hooks, limits, links
from memplan.probes.calibrate.clock import Figure, Timing, timed
from memplan.probes.calibrate.compute import CASES, FLOATS, flops
from memplan.probes.machine import probe_gpu
from memplan.probes.machine.setting import setting
from tests.probes.fake_drivers import Board, FakeNvml

ARC = Gpu("Intel Arc B580", 12 * GIB, 12 * GIB, kind="xpu")
RATES = {"FLOP/s": (1e6, 1e16), "B/s": (1e6, 1e14), "s": (1e-7, 0.1)}
"""From the slowest to the fastest that a figure of each unit can be on any machine, however busy."""


def taken(gpu: Gpu | None) -> dict[str, Reading]:
    return {reading.name: reading for reading in calibrate.measure(gpu, 0.2)}


def check(readings: dict[str, Reading]) -> None:
    for name, reading in readings.items():
        if reading.value is not None and reading.kind not in LIMITS:
            low, high = RATES[reading.unit]
            assert low < reading.value < high, name
            assert reading.spread >= 0


# ---- for real --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def host() -> dict[str, Reading]:
    """Every figure of a machine without a card."""
    return taken(None)


def test_the_cpu_and_the_disk_are_measured_without_a_card(host: dict[str, Reading]) -> None:
    check(host)
    assert {name for name, reading in host.items() if reading.value is None} <= {"disk", "hook", "dispatch"}
    assert {(r.family, r.dtype) for r in host.values() if r.kind == ON_HOST} == {(f, d) for f in CASES for d in FLOATS}
    assert not [name for name, r in host.items() if r.kind in (COMPUTE, *LIMITS)]
    found = Calibration(setting(None), "2026-01-31", tuple(host.values()))
    assert store.decode(Calibration, json.loads(json.dumps(store.encode(found)))) == found


def test_more_work_takes_longer() -> None:
    small, large = (torch.ones(n, n) for n in (64, 512))
    short, long = (timed(lambda t=t: t @ t, "cpu", 0.05) for t in (small, large))  # type: ignore[misc]
    assert 0 < short.least <= short.median
    assert long.least > short.least


def test_the_size_grows_with_the_time_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device is made up that takes a microsecond for each weight."""
    batch: Any = lambda work, *_: work.args[1].numel() / 1e6  # noqa: E731
    monkeypatch.setattr(compute, "batch", batch)
    monkeypatch.setattr(compute, "timed", lambda *_: Timing(1.0, 1.0))
    sizes = [flops(MATMUL, "float32", "cpu", seconds).note for seconds in (0.01, 5000.0)]
    assert sizes[0].startswith("64 x 256 by")
    assert sizes[1].startswith("4608 x 3072 by")


def test_hooks_of_the_libraries_cost_more_than_nothing() -> None:
    hooked = hooks._group_offload(hooks._Blocks(), "cpu"), hooks._sequential_offload(hooks._Blocks(), "cpu")
    x = torch.ones(1, hooks.WIDTH)
    for module in hooked:
        assert module(x).shape == x.shape
        assert (
            sum(hasattr(m, "_diffusers_hook") or hasattr(m, "_hf_hook") for m in module.modules()) >= 2 * hooks.BLOCKS
        )
        assert sum(1 for _ in module.parameters()) == hooks.TENSORS * hooks.BLOCKS


def test_a_disk_is_read_past_the_page_cache(tmp_path: Path) -> None:
    found = disk.disk(tmp_path, 0.2, largest=16 * MIB)
    assert 1e6 < found.value < 1e12
    assert str(tmp_path) in found.note
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_stays_in_memory_is_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if disk._fetched() is None:
        pytest.skip("this system does not count what comes from storage")
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: None)
    with pytest.raises(RuntimeError, match="is read from memory"):
        disk.disk(tmp_path, 0.1, largest=MIB)
    assert list(tmp_path.iterdir()) == []


def test_the_disk_is_that_of_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert disk.model_folder() != tmp_path / "hub"
    (tmp_path / "hub").mkdir()
    assert disk.model_folder() == tmp_path / "hub"


# ---- what cannot be had ----------------------------------------------------------------------------------------------
def test_a_card_that_torch_cannot_use_is_told() -> None:
    if torch.accelerator.is_available() and torch.accelerator.current_accelerator() == torch.device("xpu"):
        pytest.skip("there is such a card here")
    found = calibrate.measure(ARC, 0.1)
    assert found[0].kind == COMPUTE
    assert found[0].note.endswith("cannot use Intel Arc B580")
    assert "launch" not in {reading.kind for reading in found}, "the CPU's would be no figure of the card's"


def test_each_gap_is_told_and_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU stands in for a device; what it cannot do is left out, and named."""
    small = links.copies(MIB, 2 * MIB)
    monkeypatch.setattr(calibrate, "_device", lambda gpu: ("cpu", ""))
    monkeypatch.setattr(calibrate, "copies", lambda: small)
    monkeypatch.setattr(disk, "disk", lambda *_: Figure(1e9))
    found = taken(ARC)
    check(found)
    assert found["bandwidth"].value is not None
    assert found["to_host"].value is not None
    assert found["matmul int8"].value is not None or found["matmul int8"].note
    if not torch.accelerator.is_available():
        assert found["pinned"].value is None
        assert "accelerator" in found["pinned"].note
    assert not [name for name, r in found.items() if r.value is None and not r.note]


def test_the_time_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    given = dict[str, float]()

    def job(name: str, weight: int = 1) -> calibrate._Job:
        def work(seconds: float) -> Figure:
            given[name] = seconds
            time.sleep(0.06 if name == "a" else 0.0)
            return Figure(1.0)

        return calibrate._Job(Reading(name), work, weight)

    monkeypatch.setattr(calibrate, "_jobs", lambda gpu: [job("a"), job("b", 3), job("c")])
    calibrate.measure(None, 0.1)
    assert 0.0 < given["a"] <= 0.1 / 5
    assert 0.0 <= given["b"] <= 0.75 * 0.04, "what one takes too much the others do without"
    assert 0.0 <= given["c"] <= 0.04


# ---- the context of a card -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("told", "before", "expected"), [(900, None, 700), (None, 1000, 300), (900, 1000, 700), (None, None, None)]
)
def test_the_context_is_what_no_tensor_has(
    told: int | None, before: int | None, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(total=24000, free=22500, processes={os.getpid(): told, 1: 600})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([board]))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 200 * MIB)
    assert limits.in_use() == 1500 * MIB
    start = None if before is None else before * MIB
    if expected is None:
        with pytest.raises(RuntimeError, match="does not tell"):
            limits.context(start)
    else:
        assert limits.context(start).value == expected * MIB


def test_without_nvml_nothing_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert limits.in_use() is None


# ---- on a device -----------------------------------------------------------------------------------------------------
@pytest.mark.gpu
@pytest.mark.slow
def test_a_card_is_measured() -> None:
    gpu = probe_gpu()
    assert gpu is not None
    found = {reading.name: reading for reading in calibrate.measure(gpu, 10.0)}
    check(found)
    for name in ("matmul float16", "attention float16", "convolution float16", "bandwidth", "pinned", "to_device"):
        assert found[name].value is not None, found[name].note
    for kind in (WORKSPACE, PINNED_BLOCK):
        assert all(r.value is not None and r.value >= 0 for r in found.values() if r.kind == kind)
    assert found[PINNED_BLOCK].value == 8 * MIB
    context = found[CONTEXT]
    assert context.value is None or 50 * MIB < context.value < 4 * GIB, context
    peak = max(rate for dtype, rate in gpu.rates if dtype == "float16") if gpu.rates else 1e16
    assert (found["matmul float16"].value or 0) < 1.1 * peak
