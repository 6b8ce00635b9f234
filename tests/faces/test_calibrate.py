"""What was measured of this machine is kept, used for it alone, and told."""

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import memplan
from memplan.__main__ import main
from memplan.catalogue.rates import rates_of
from memplan.faces import api, calibrate, calibrated, measuring, store
from memplan.facts import (
    COMPUTE,
    CONTEXT,
    CONVOLUTION,
    LIMITS,
    MATMUL,
    ON_HOST,
    USUAL,
    WORKSPACE,
    Calibration,
    Gpu,
    Model,
    Reading,
    Trace,
)
from memplan.probes.machine import probe_gpu
from memplan.probes.machine.setting import setting
from tests.faces import small
from tests.probes.fake_drivers import Board, FakeNvml

DAY = "2026-01-31"
OPS = 2 + 20 * 5 + 1
"""Of the small pipeline's call."""
READINGS = (
    Reading("launch", value=1.0, spread=0.3, assumed=1e-5),
    Reading(COMPUTE, MATMUL, "bfloat16", 100e12, note="4608 rows", assumed=132e12),
    Reading(COMPUTE, MATMUL, "float8_e4m3fn", note="not on this card", assumed=264e12),
    Reading(ON_HOST, MATMUL, "float32", 60e9, assumed=1e11),
    Reading("disk", value=1e9, note="in /models", assumed=2e9),
    Reading(CONTEXT, value=500.0, assumed=600.0),
    Reading(WORKSPACE, "channels last", "float32", 0.0, assumed=0.0),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, and one RTX 4090."""
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([Board()]))
    monkeypatch.setattr(measuring, "_opened", lambda *_: None)
    monkeypatch.setattr(measuring, "_measured", lambda *_, **__: _small())
    calibrated._warn.cache_clear()
    return tmp_path / "cache"


def _small() -> tuple[Model, Trace]:
    facts = small.facts()
    return facts.model, facts.trace


def card() -> Gpu:
    gpu = probe_gpu()
    assert gpu is not None
    return gpu


def kept(**changes: Any) -> Path:
    """A calibration of this machine, kept; its setting with these changes."""
    path = calibrated.save(Calibration(replace(setting(card()), **changes), DAY, READINGS), card())
    assert path is not None
    return path


# ---- there and back --------------------------------------------------------------------------------------------------
def test_round_trip(cache: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert calibrated.load(card()) is None
        path = kept()
        assert calibrated.load(card()) == Calibration(setting(card()), DAY, READINGS)
    assert path.name == "calibration-nvidia-geforce-rtx-4090.json"
    assert list(cache.iterdir()) == [path]


def test_forgetting(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = kept()
    assert main(["calibrate", "--forget"]) == 0
    assert str(path) in capsys.readouterr().out.replace("\n", "")
    assert list(cache.iterdir()) == []
    assert main(["calibrate", "--forget", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] is None


def test_without_a_place_to_write_nothing_is_kept(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="goes on without its cache"):
        assert calibrated.save(Calibration(setting(None), DAY, READINGS), None) is None
    assert calibrated.forget(None) is None


# ---- the rates -------------------------------------------------------------------------------------------------------
def test_what_was_measured_replaces_what_was_assumed() -> None:
    before = rates_of(card())
    rates = Calibration(setting(card()), DAY, READINGS).rates(before)
    assert (rates.launch, rates.disk, rates.pinned) == (1.0, 1e9, before.pinned)
    assert rates.flops(MATMUL, "bfloat16") == 100e12
    assert rates.flops(MATMUL, "float8_e4m3fn") == before.flops(MATMUL, "float8_e4m3fn")
    assert rates.flops(CONVOLUTION, "bfloat16") == before.flops(CONVOLUTION, "bfloat16")
    assert rates.host_flops(MATMUL, "float32") == rates.host_flops(MATMUL, "bfloat16") == rates.host == 60e9
    assert before.host_flops(MATMUL, "float32") == before.host
    assert rates.source.startswith(f"measured on this machine on {DAY}; bandwidth, kernel, hook, dispatch, pinned")
    assert rates.source.endswith(f"matmul float8_e4m3fn by {before.source}")


def test_of_an_unknown_card_the_slowest_product_stands_for_what_is_not_known() -> None:
    rates = Calibration(setting(None), DAY, READINGS).rates(USUAL)
    assert rates.flops(MATMUL, "float64") == rates.fallback == 100e12


def seconds(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[float, str]:
    """Of the plan that does nothing, and where the rates come from."""
    assert main(["price", "flux.1-dev", "--json", *options]) == 0
    data = json.loads(capsys.readouterr().out)
    return data["plan"]["seconds"], data["machine"]["rates"]["source"]


def test_plans_for_this_machine_use_them_and_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    before, source = seconds(capsys)
    assert source == "the datasheet of NVIDIA GeForce RTX 4090, and a usual host"
    kept()
    after, source = seconds(capsys)
    assert before < 0.01
    assert after == pytest.approx(OPS * 1.0, rel=0.001), "a second for each op that the host issues"
    assert source.startswith(f"measured on this machine on {DAY}; ")
    assert seconds(capsys, "--ram", "16", "--reserve", "1")[0] == after
    for verb in (["recommend", "flux.1-dev"], ["price", "flux.1-dev"], ["probe"]):
        assert main(verb) == 0
        assert f"rates: measured on this machine on {DAY}; " in capsys.readouterr().out
    assert main(["probe", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["rates"]["launch"] == 1.0


@pytest.mark.parametrize("options", [("--gpu", "RTX 4090"), ("--gpu", "RTX 3090"), ("--vram", "24")])
def test_plans_for_a_card_that_is_named_do_not(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    before = seconds(capsys, *options)
    kept()
    assert seconds(capsys, *options) == before
    assert "measured" not in before[1]


def test_another_card_in_this_machine_has_figures_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept()
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([Board("NVIDIA GeForce RTX 3060", total=12288, free=12288)]))
    assert seconds(capsys)[0] < 0.01


# ---- what can be wrong with a file -----------------------------------------------------------------------------------
def document(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps(change(json.loads(data))).encode()


def a_reading(**changes: Any) -> Callable[[bytes], bytes]:
    """The first reading, changed."""
    first = store.encode(replace(READINGS[0], **changes))
    return document(lambda d: d | {"calibration": [*d["calibration"][:2], [first]]})


DAMAGES = {
    "empty": (lambda data: b"", "cannot be read"),
    "cut off": (lambda data: data[: len(data) // 2], "cannot be read"),
    "not utf-8": (lambda data: b'"\xff"', "cannot be read"),
    "too deep": (lambda data: b"[" * 100_000, "cannot be read"),
    "json of something else": (lambda data: b"[1]", "is of format none"),
    "of another version": (document(lambda d: d | {"format": 2}), "is of format 2, and this memplan reads 1"),
    "without readings": (document(lambda d: {"format": 1}), "is damaged"),
    "a field too few": (document(lambda d: d | {"calibration": d["calibration"][:2]}), "is damaged"),
    "a word for a number": (a_reading(value="fast"), "is damaged"),
    "a rate below zero": (a_reading(value=-1.0), "launch cannot be as it says"),
    "a rate of nothing": (a_reading(value=0.0), "launch cannot be as it says"),
    "a rate without end": (a_reading(value=math.inf), "launch cannot be as it says"),
    "no rate": (a_reading(kind="colour"), "colour cannot be as it says"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_told_and_not_used(
    damage: Callable[[bytes], bytes], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = kept()
    path.write_bytes(damage(path.read_bytes()))
    assert main(["probe"]) == 0
    out, err = capsys.readouterr()
    assert "rates: the datasheet of" in out
    assert err.startswith(f"memplan: the calibration {path} ")
    assert said in err
    assert "memplan calibrate --forget" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("field", "told"), [("gpu", "gpu a, here NVIDIA"), ("driver", "driver a, here 580"), ("torch", "torch a, here 2."),
                        ("cpu", "cpu a, here"), ("link", "link a, here PCIe 4.0 x16")],
)  # fmt: skip
def test_a_file_of_another_setting_is_told_and_not_used(
    field: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept(**{field: "a"})
    assert main(["probe"]) == 0
    out, err = capsys.readouterr()
    assert "rates: the datasheet of" in out
    assert f"was measured with another setting ({told}" in err


def test_it_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    kept(torch="1.0")
    assert main(["recommend", "flux.1-dev"]) == 0
    assert main(["recommend", "flux.1-dev"]) == 0
    assert capsys.readouterr().err.count("another setting") == 1


# ---- measuring, as people ask for it ---------------------------------------------------------------------------------
@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is measured is given; the value tells the seconds that were asked for."""
    asked = list[float]()

    def take(gpu: Gpu | None, seconds: float, progress: Any) -> tuple[Reading, ...]:
        asked.append(seconds)
        return tuple(r if r.kind in LIMITS else replace(r, assumed=None) for r in READINGS)

    monkeypatch.setattr("memplan.probes.calibrate.measure", take)
    return asked


def test_each_figure_is_shown_beside_the_assumed_one(measured: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "launch 1 s 10 us 1e+05 30%" in lines
    assert "disk 1 GB/s 2 GB/s 0.5 0% in /models" in lines
    assert "matmul float32 on the CPU 60 GFLOP/s 100 GFLOP/s 0.6 0%" in lines
    assert "matmul float8_e4m3fn: not on this card" in lines
    assert any(line.startswith("context 500 B ") for line in lines)
    assert measured == [calibrate.SECONDS]
    assert calibrated.load(card()) is not None


def test_for_programs(measured: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--json", "--quick"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert measured == [calibrate.QUICK]
    assert set(data) == {"schema", "machine", "file", "date", "readings"}
    assert data["machine"]["rates"]["disk"] == 1e9
    first = data["readings"][0]
    assert (first["name"], first["unit"], first["measured"], first["assumed"]) == ("launch", "s", 1.0, 1e-5)
    assert first["ratio"] == pytest.approx(1e5)
    assert Path(data["file"]) == calibrated.file_of(card())
    missing = [r for r in data["readings"] if r["measured"] is None]
    assert [r["note"] for r in missing] == ["not on this card"]


def test_in_python(measured: list[float]) -> None:
    rates = memplan.calibrate(quick=True)
    assert rates == api.machine().rates
    assert rates.launch == 1.0
    assert rates.source.startswith("measured on this machine on 2")


def test_without_a_card(measured: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert memplan.calibrate().host_flops(MATMUL, "float32") == 60e9
    assert calibrated.file_of(None).exists()
    assert api.machine().rates.disk == 1e9
    assert "measured" not in api.machine(api.Target(vram=8)).rates.source


def test_forget_and_quick_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--quick", "--forget"]) == 2
    assert "not allowed with" in capsys.readouterr().err


def test_what_is_kept_is_read_without_torch() -> None:
    calibrated.save(Calibration(setting(None), DAY, READINGS), None)
    code = "import sys; from memplan.faces import calibrated as c; print(c.load(None).date, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [DAY, "False"]
