"""What is applied to a pipeline in memory can be found, undone, and is not applied over."""

import copy
import gc
import pickle
import weakref
from pathlib import Path

import pytest
import torch

import memplan
from memplan.applier import HELD, apply
from memplan.errors import BadInput, NothingFits
from memplan.faces import live
from memplan.probes import pipeline
from memplan.probes.fakes.twin import modules_of
from memplan.strategies import GroupOffload, OnGpu
from tests.faces import small
from tests.pipelines import build, inputs
from tests.test_strategy_laws import attributes, picture

ROOM = memplan.Target(vram=24, ram=64)


def test_it_is_found_until_it_is_undone() -> None:
    pipe = build("flux")
    assert memplan.applied(pipe) is None
    made = memplan.auto_optimize(pipe, prefer="quality", target=ROOM, device="cpu", **inputs("flux"))
    assert memplan.applied(pipe) is made
    assert memplan.applied(pipe.vae) is memplan.applied({"other": pipe.transformer}) is made
    made.undo()
    assert memplan.applied(pipe) is None
    assert not [part for part in (pipe, *modules_of(pipe).values()) if HELD in vars(part)]


def test_it_is_found_where_nobody_kept_it() -> None:
    pipe = build("flux")
    expected, before = picture(pipe, "flux"), attributes(pipe)
    apply((GroupOffload("transformer"),), pipe, "cpu")
    gc.collect()
    found = memplan.applied(pipe)
    assert found is not None
    assert found.plan == "group_offload:transformer"
    found.undo()
    assert attributes(pipe) == before
    assert torch.equal(picture(pipe, "flux"), expected)


def test_a_plan_that_is_named_is_applied_and_says_first_what_stays(caplog: pytest.LogCaptureFixture) -> None:
    pipe = build("flux", dtype=torch.bfloat16)
    plan = "int8_weight_only:transformer + group_offload:text_encoder_2"
    made = memplan.auto_optimize(pipe, plan, target=ROOM, device="cpu", **inputs("flux"))
    assert made.plan.startswith("int8_weight_only:transformer")
    assert "group_offload:text_encoder_2" in made.plan
    assert type(pipe.transformer.x_embedder.weight).__name__ == "Int8Tensor"
    (said,) = [record.message for record in caplog.records if record.name == "memplan"]
    assert said.startswith("int8_weight_only can't be undone; quantizing gives up the original weights")


def test_a_plan_that_is_named_must_fit_and_exist() -> None:
    pipe = build("flux")
    small = memplan.Target(vram=0.001, ram=64)
    with pytest.raises(NothingFits, match=r"the plan, group_offload:vae, needs .* of device memory"):
        memplan.auto_optimize(pipe, "group_offload:vae", target=small, device="cpu", **inputs("flux"))
    with pytest.raises(BadInput, match=r"no strategy 'vae_tilling'\. Did you mean vae_tiling"):
        memplan.auto_optimize(pipe, "vae_tilling:vae", target=ROOM, device="cpu", **inputs("flux"))


def test_modules_without_a_pipeline_hold_it_themselves() -> None:
    part = torch.nn.Linear(2, 2)
    memplan.auto_optimize(part, prefer="quality", target=ROOM, device="cpu", input=torch.zeros(1, 2))
    gc.collect()
    found = memplan.applied(part)
    assert found is not None
    with pytest.raises(BadInput, match="model carries a plan already, on_gpu:model: call undo"):
        memplan.auto_optimize(part, target=ROOM, device="cpu", input=torch.zeros(1, 2))
    found.undo()
    assert memplan.applied(part) is None


def test_a_second_plan_names_the_first_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = build("flux")
    monkeypatch.setattr("memplan.faces.live.facts", lambda *_, **__: pytest.fail("it was measured"))
    with (
        apply((GroupOffload("transformer"), OnGpu("vae")), pipe, "cpu"),
        pytest.raises(
            BadInput, match=r"plan already, on_gpu:vae \+ group_offload:transformer: call undo\(\) on memplan\."
        ),
    ):
        memplan.auto_optimize(pipe, target=ROOM, device="cpu", **inputs("flux"))


def test_it_travels_into_no_copy_and_no_file(tmp_path: Path) -> None:
    pipe, part = build("flux"), torch.nn.Linear(2, 2)
    pipe.save_pretrained(tmp_path / "before")
    with apply((OnGpu("vae"),), pipe, "cpu"):
        memplan.auto_optimize(part, target=ROOM, device="cpu", input=torch.zeros(1, 2))
        for copied in (copy.deepcopy(part), pickle.loads(pickle.dumps(part)), copy.deepcopy(pipe.vae)):
            assert memplan.applied(copied) is None
        pipe.save_pretrained(tmp_path / "after")
    files = [sorted((p.relative_to(f), p.read_bytes()) for p in f.rglob("*.json")) for f in tmp_path.iterdir()]
    assert files[0] == files[1]


def test_the_memory_of_a_pipeline_goes_with_it_at_once() -> None:
    """Without a garbage collection, as nothing that is kept of a plan refers to the pipeline."""
    pipe = build("sd15")
    apply((OnGpu("vae"),), pipe, "cpu")
    alive = weakref.ref(pipe.vae.decoder)
    gc.collect()
    gc.disable()
    try:
        del pipe
        assert alive() is None
    finally:
        gc.enable()


def test_a_plan_finds_components_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """auto_optimize() reckons with what is on a device already, all else with host memory."""
    pipe = build("flux")
    found = small.facts()
    assert not any(part.on_device for part in found.model.components)
    first = next(pipe.transformer.parameters())
    monkeypatch.setattr(pipeline, "_away", lambda weight: weight is first)
    there = live._in_place(found, pipe)
    assert [part.name for part in there.model.components if part.on_device] == ["transformer"]
    assert there.trace is found.trace
