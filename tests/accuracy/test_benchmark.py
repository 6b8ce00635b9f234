"""The benchmark rehearsed on the CPU with small pipelines: all of it but what only a device reports."""

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from memplan.catalogue.models import BundledModel, find
from memplan.errors import BadInput
from memplan.facts import GIB, Gpu
from memplan.probes.fakes.twin import modules_of
from memplan.probes.sources.bundled import twin_of
from memplan.simulator.device import context
from tests.accuracy.benchmark import command, one
from tests.accuracy.benchmark.case import ABSENT, FAILED, OOM, RAN, Case, Entry, Machine, Result, read, write
from tests.accuracy.benchmark.devices import Cuda
from tests.accuracy.benchmark.sheet import sheet
from tests.accuracy.benchmark.ways import WAYS
from tests.accuracy.benchmark.weights import DEVIATION, random_pipeline
from tests.measured_facts import facts_of
from tests.pipelines import build

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, whose allocator it caps")
HERE = Machine("2026-01-02", "a card, 80.00 GiB", "1.2, CUDA 13", "Linux, 2 CPUs, 8 GiB", "torch 2")


# ---- weights ---------------------------------------------------------------------------------------------------------
def tiny() -> BundledModel:
    """FLUX.1-dev as it is bundled, with the configs of the small pipeline."""
    small, whole = build("flux"), find("flux.1-dev")
    parts: dict[str, Any] = modules_of(small)
    configs: dict[str, Any] = {
        name: part.config.to_dict() if hasattr(part.config, "to_dict") else dict(part.config)
        for name, part in parts.items()
    }
    changed = {
        name: replace(part, config=configs.get(name, part.config), published_parameters=None)
        for name, part in whole.components.items()
    }
    return replace(whole, components=changed)


def test_random_weights_are_those_of_the_twin_in_all_but_their_values() -> None:
    model = tiny()
    pipe, _ = random_pipeline(model)
    twin = twin_of(model)
    for name, fake in twin.components().items():
        real = getattr(pipe, name)
        assert not real.training
        expected = {path: (t.shape, t.dtype) for path, t in fake.state_dict().items()}
        assert {path: (t.shape, t.dtype) for path, t in real.state_dict().items()} == expected
        assert not any(t.is_meta for t in (*real.parameters(), *real.buffers()))
        assert len(list(real.parameters())) == len(list(fake.parameters())), "tied weights stay tied"
    matrix = pipe.transformer.context_embedder.weight.float()
    assert matrix.std().item() == pytest.approx(DEVIATION, rel=0.2)
    assert torch.equal(random_pipeline(model)[0].transformer.context_embedder.weight.float(), matrix)


def test_scales_of_norms_are_one_and_biases_zero() -> None:
    encoder = random_pipeline(tiny())[0].text_encoder
    (norm, *_) = [part for part in encoder.modules() if isinstance(part, torch.nn.LayerNorm)]
    assert norm.weight.eq(1).all()
    assert norm.bias.eq(0).all()


# ---- one case --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def facts() -> Any:
    return facts_of(build("flux"), kind="cpu")


def rehearse(way: str, facts: Any, monkeypatch: pytest.MonkeyPatch, **others: Any) -> Result:
    monkeypatch.setattr(one, "facts_of", lambda *_: facts)
    return one.run(Case("small:flux", 8, way, steps=1, device="cpu", calls=2, **others))


@pytest.mark.parametrize("way", ["all-on-gpu", "diffusers:model", "diffusers:group-leaf", "diffusers:group-block"])
def test_priced_ways_run(way: str, facts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = rehearse(way, facts, monkeypatch)
    assert (found.outcome, found.note) == (RAN, "")
    assert found.plan
    assert None not in (found.first, found.steady, found.host, found.predicted_allocated)
    assert found.predicted_fits
    assert (found.allocated, found.reserved, found.outside) == (None, None, None), "the CPU reports none"


def test_a_device_map_runs_and_is_not_priced(facts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = rehearse("accelerate:device-map", facts, monkeypatch)
    assert (found.outcome, found.plan, found.predicted_seconds) == (RAN, "", None)


def test_what_is_not_installed_is_said(facts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.accuracy.benchmark.ways.find_spec", lambda name: None)
    assert {rehearse(way, facts, monkeypatch).outcome for way in ("mmgp:2", "cache-dit:model")} == {ABSENT}


def test_running_out_of_memory_is_an_outcome(facts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(*_: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(one, "timed", timed)
    found = rehearse("all-on-gpu", facts, monkeypatch)
    assert (found.outcome, found.note, found.first) == (OOM, "in call 1", None)


def test_what_a_library_raises_is_an_outcome(facts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(one, "carry_out", refuse)
    found = rehearse("all-on-gpu", facts, monkeypatch)
    assert (found.outcome, found.note) == (FAILED, "in applying: RuntimeError: no")


def test_every_pick_and_offload_of_the_task_is_a_way() -> None:
    picks = {f"memplan:{name}" for name in ("quality", "speed", "memory", "balanced")}
    assert picks < set(WAYS)
    assert {way.package for way in WAYS.values()} == {"", "mmgp", "cache_dit"}
    assert all((way.planned is None) != (way.made is None) for way in WAYS.values())


# ---- the device ------------------------------------------------------------------------------------------------------
def test_the_cap_leaves_room_for_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    card = Gpu("a card", 80 * GIB, 80 * GIB, capability=(9, 0))
    properties = type("Properties", (), {"total_memory": 80 * GIB})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", given.append)
    Cuda().cap(8, card)
    assert given == [(8 * GIB - context(card)) / (80 * GIB)]
    Cuda().cap(0, card)
    assert len(given) == 1, "0 is no cap"
    for gib in (0.1, 81):
        with pytest.raises(BadInput, match="is not within"):
            Cuda().cap(gib, card)


@GPU
@pytest.mark.gpu
@pytest.mark.slow
def test_a_capped_device_runs_out_of_memory_where_it_must() -> None:
    case = Case("sd1.5", 2.0, "all-on-gpu", steps=1, calls=1)
    assert command.alone(case, 600).outcome == OOM
    found = command.alone(replace(case, cap=8.0), 600)
    assert found.outcome == RAN
    assert found.reserved is not None
    assert found.reserved <= 8 * GIB


def test_without_a_device_the_command_refuses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        command.main(["--out", "unwritten.csv"])
    assert "no CUDA device is visible here" in capsys.readouterr().err


# ---- a process for each ----------------------------------------------------------------------------------------------
@pytest.mark.wide
def test_a_case_runs_in_a_process_of_its_own() -> None:
    found = command.alone(Case("small:flux", 8, "diffusers:model", steps=1, device="cpu", calls=1), 300)
    assert (found.outcome, found.note) == (RAN, "")
    assert found.plan == "model_offload"


def test_the_last_marked_line_is_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    line = one.MARK + json.dumps(asdict(Result(outcome=RAN, plan="a + b", first=1.5)))
    instead(f"print('noise'); print({line!r}); print('more')", monkeypatch)
    assert command.alone(Case("small:flux", 8, "all-on-gpu"), 60) == Result(outcome=RAN, plan="a + b", first=1.5)


def instead(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the process run `code`."""
    start = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda words, **how: start([words[0], "-c", code], **how))


@pytest.mark.parametrize(
    ("code", "note"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9; host memory may be short"),
        ("raise ValueError('bad')", "ValueError: bad"),
        ("import time; time.sleep(60)", "given up after 1 s"),
    ],
)
def test_what_ends_the_process_is_an_outcome(code: str, note: str, monkeypatch: pytest.MonkeyPatch) -> None:
    instead(code, monkeypatch)
    found = command.alone(Case("small:flux", 8, "all-on-gpu"), 1)
    assert (found.outcome, found.note) == (FAILED, note)


# ---- the file and the summary ----------------------------------------------------------------------------------------
def entries() -> list[Entry]:
    case = Case("a-model", 8.0, "diffusers:model")
    plan = {"plan": "model_offload", "predicted_allocated": 2 * GIB, "predicted_seconds": 3.0, "predicted_fits": True}
    ran = Result(**plan, outcome=RAN, allocated=GIB, reserved=GIB, first=9.0, steady=2.0)  # type: ignore[arg-type]
    out = Result(**{**plan, "predicted_fits": False}, outcome=OOM, note="in call 1")  # type: ignore[arg-type]
    absent = Result(outcome=ABSENT, note="mmgp is not installed here")
    return [(case, ran, HERE), (replace(case, cap=2.0), out, HERE), (replace(case, way="mmgp:2"), absent, HERE)]


def test_the_file_keeps_the_entries(tmp_path: Path) -> None:
    assert read(tmp_path / "none.csv") == []
    write(tmp_path / "found.csv", entries())
    assert read(tmp_path / "found.csv") == entries()


def test_the_summary_holds_predictions_against_what_was_measured() -> None:
    text = sheet(entries())
    assert "- predicted to fit: 1, of which 1 ran, 0 ran out of memory, 0 failed" in text
    assert "- predicted to not fit: 1, of which 0 ran, 1 ran out of memory, 0 failed" in text
    assert "- allocated peak: n 1, median 100.00% off, worst +100.00%" in text
    assert (
        "| diffusers:model | yes | ran | 1.00 | 2.00 | +100.0% | 1.00 | - | - | 9.00 | 2.00 | 3.00 | +50.0% | - |"
        in text
    )
    assert "- mmgp is not installed here" in text
    assert "2026-01-02; a card, 80.00 GiB" in text
    assert "rehearsal" not in text


def test_a_benchmark_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Case] = []
    cases = [Case("small:flux", 8.0, way, device="cpu") for way in ("all-on-gpu", "diffusers:model")]

    def alone(case: Case, limit: float) -> Result:
        ran.append(case)
        return Result(**json.loads(json.dumps(asdict(Result(outcome=RAN, first=1.0)))))

    monkeypatch.setattr(command, "alone", alone)
    out = tmp_path / "found.csv"
    assert len(list(command.benchmark(cases[:1], out, 1))) == 2
    assert len(list(command.benchmark(cases, out, 1))) == 2
    assert ran == cases
    assert "A rehearsal on the CPU" in out.with_suffix(".md").read_text(encoding="utf-8")
