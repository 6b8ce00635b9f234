"""Loading a pipeline under a plan."""

import re
import weakref
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file

import memplan
from memplan.errors import ApplyFailed, BadInput, LoadFailed, NothingFits
from memplan.faces.assembled import assembled
from memplan.faces.live import applied
from memplan.faces.load import load
from memplan.facts import GIB, MIB, Gpu, Host, Machine
from memplan.facts.units import amount
from memplan.probes.fakes.twin import modules_of
from memplan.probes.pipeline import measure
from memplan.strategies import Int8WeightOnly, OnGpu
from tests.pipelines import build, inputs

ROOM = memplan.Target(vram=4, ram=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small FLUX, saved in bfloat16."""
    place = tmp_path_factory.mktemp("flux")
    build("flux", dtype=torch.bfloat16).save_pretrained(place)
    return place


@pytest.fixture(autouse=True)
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that these tests share."""
    monkeypatch.setenv("MEMPLAN_CACHE", str(folder.with_name("cache")))


def asked(**other: Any) -> dict[str, Any]:
    call = {name: value for name, value in inputs("flux").items() if name != "generator"}
    return {"target": ROOM, "device": "cpu", **call, **other}


def kinds(pipe: Any) -> dict[str, str]:
    """The type of the first matrix of each component."""
    found = {}
    for name, part in modules_of(pipe).items():
        linear = next(m for m in part.modules() if isinstance(m, torch.nn.Linear))
        found[name] = type(linear.weight).__name__
    return found


@pytest.mark.slow
def test_a_plan_that_is_named_is_applied(folder: Path) -> None:
    said: list[str] = []
    plan = "int8_weight_only:transformer + bnb_4bit:text_encoder_2"
    pipe = load(folder, plan, progress=said.append, **asked())
    plain = "Parameter"
    expected = {"vae": plain, "text_encoder": plain, "text_encoder_2": "Params4bit", "transformer": "Int8Tensor"}
    assert kinds(pipe) == expected
    assert {part.dtype for name, part in modules_of(pipe).items() if expected[name] == plain} == {torch.bfloat16}
    picture = pipe(**inputs("flux"))[0]
    assert torch.isfinite(picture).all()
    loading = [f"loading {name}" for name in ("vae", "text_encoder", "text_encoder_2", "transformer")]
    assert [word for word in said if word in loading] == loading
    assert said.index("applying the plan") > said.index("loading transformer")


@pytest.mark.slow
def test_files_of_a_variant_are_planned_and_loaded(tmp_path: Path) -> None:
    """As they are stored, so that they stay mapped from their files; a component that has none is as it is stored."""
    build("flux").save_pretrained(tmp_path)
    build("flux", dtype=torch.float16).transformer.save_pretrained(tmp_path / "transformer", variant="fp16")
    pipe = load(tmp_path, "model_offload", options={"variant": "fp16"}, **asked())
    assert (pipe.transformer.dtype, pipe.vae.dtype) == (torch.float16, torch.float32)
    plan = memplan.price(
        tmp_path, "model_offload", variant="fp16", **{k: v for k, v in asked().items() if k != "device"}
    )
    model = plan.run.facts.model
    assert {part.name: (part.dtype, part.mapped) for part in model.components}["transformer"] == ("float16", True)
    assert model.variant == "fp16"
    assert load(tmp_path, plan, **asked()).transformer.dtype == torch.float16
    with pytest.raises(BadInput, match="the plan was made for the files of variant fp16"):
        load(tmp_path, plan, options={"variant": "bf16"}, **asked())


@pytest.mark.slow
def test_without_a_plan_it_is_the_pick(folder: Path) -> None:
    pipe = load(folder, prefer="quality", **asked())
    before = build("flux", dtype=torch.bfloat16)
    assert torch.equal(pipe(**inputs("flux"))[0], before(**inputs("flux"))[0])
    with pytest.raises(BadInput, match="carries a plan already, on_gpu:"):
        memplan.auto_optimize(pipe, target=ROOM, device="cpu")
    done = applied(pipe)
    assert done is not None
    done.undo()
    assert applied(pipe) is None


@pytest.mark.slow
def test_a_plan_of_recommend_is_taken(folder: Path) -> None:
    call = asked()
    device = call.pop("device")
    plan = memplan.price(folder, ["int8_weight_only:transformer"], **call)
    assert kinds(load(folder, plan, device=device))["transformer"] == "Int8Tensor"


@pytest.mark.slow
def test_each_component_has_the_dtype_it_was_planned_in(tmp_path: Path) -> None:
    pipe = build("flux", dtype=torch.bfloat16)
    pipe.vae.to(torch.float32)
    pipe.save_pretrained(tmp_path / "mixed")
    loaded = assembled(measure(pipe, "flux", f"folder {tmp_path / 'mixed'}"), lambda _: None)
    dtypes = {name: part.dtype for name, part in modules_of(loaded).items()}
    assert dtypes.pop("vae") == torch.float32
    assert set(dtypes.values()) == {torch.bfloat16}


def test_it_does_not_load_what_does_not_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.faces.load.assembled", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(NothingFits, match=r"host memory, [\d,]+ MiB more than the 205 MiB there are"):
        load(folder, "model_offload", **asked(target=memplan.Target(vram=4, ram=0.2)))


def test_nor_what_needs_more_than_this_machine_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.faces.load.assembled", lambda *_: pytest.fail("it was loaded"))
    monkeypatch.setattr("memplan.faces.room.machine", lambda _: Machine(None, Host(GIB, GIB // 4)))
    with pytest.raises(NothingFits, match=r"more than the 256 MiB there are\. Nothing has been loaded"):
        load(folder, "model_offload", **asked())


def test_a_pipeline_in_memory_is_not_loaded() -> None:
    with pytest.raises(BadInput, match="auto_optimize"):
        load(build("flux"), "model_offload")


def test_a_plan_for_another_card_is_priced_for_this_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.faces.load.assembled", lambda *_: pytest.fail("it was loaded"))
    call = asked()
    device = call.pop("device")
    plan = memplan.price(folder, ["model_offload"], **call)
    needed = plan.bill.peak.memory.required  # with a device context, which a CPU has not
    assert plan.fits
    small = Machine(Gpu("small", GIB, MIB), Host(GIB * 8, GIB * 8))
    monkeypatch.setattr("memplan.faces.room.machine", lambda _: small)
    with pytest.raises(NothingFits, match=r"[\d.]+ MiB of device memory in .* MiB more than the 1 MiB there are"):
        load(folder, plan, device=device)
    monkeypatch.setattr("memplan.applier.check_device", lambda _: None)
    with pytest.raises(NothingFits, match=f"{amount(needed)} of device memory"):
        load(folder, plan, device="cuda")


def test_a_plan_for_a_smaller_card_fits_this_one(folder: Path) -> None:
    call = asked()
    device, call["target"] = call.pop("device"), memplan.Target(vram=0.1, ram=0.1)
    plan = memplan.price(folder, ["model_offload"], **call)
    assert not plan.fits
    assert applied(load(folder, plan, device=device, target=ROOM)) is not None


def test_what_the_device_cannot_do_is_refused_before_loading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.faces.load.assembled", lambda *_: pytest.fail("it was loaded"))
    streamed = "group_offload:transformer,stream=true"
    with pytest.raises(BadInput, match="stream"):
        load(folder, streamed, **asked())
    call = asked()
    device = call.pop("device")
    plan = memplan.price(folder, [streamed], **call)
    with pytest.raises(BadInput, match="stream"):
        load(folder, plan, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_an_absent_device_is_found_before_anything_is_planned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan.faces.load.facts", lambda *_, **__: pytest.fail("it was measured"))
    with pytest.raises(BadInput, match="There is no cuda device here"):
        load(folder, "model_offload", target=ROOM)


def test_a_plan_of_another_source_is_refused(folder: Path) -> None:
    call = asked()
    device = call.pop("device")
    plan = memplan.price(folder, ["model_offload"], **call)
    with pytest.raises(BadInput, match=r"the plan was made for flux.*, not for sd15"):
        load("sd15", plan, device=device)
    with pytest.raises(BadInput, match="for loading in bfloat16, not float16"):
        load(folder, plan, device=device, dtype="float16")
    with pytest.raises(BadInput, match="for height=32, not height=64: plan for that"):
        load(folder, plan, device=device, height=64)
    with pytest.raises(BadInput, match="for width=32, not width=64: plan for that"):
        load(folder, plan, device=device, height=32.0, width=64)


@pytest.mark.parametrize("make", [load, memplan.auto_optimize])
def test_a_plan_and_a_preference_exclude_each_other(make: Any) -> None:
    with pytest.raises(BadInput, match="prefer='speed' chooses among plans, and plan names one: give one of the two"):
        make("nowhere", "model_offload", prefer="speed")


# ---- nothing is left of what fails -----------------------------------------------------------------------------------
def alive(found: list[Any]) -> int:
    return sum(reference() is not None for reference in found)


def test_a_failed_plan_leaves_no_pipeline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the error is kept, which has the frames that held the pipeline."""
    left: list[Any] = []
    convert = Int8WeightOnly.convert

    def failing(self: Int8WeightOnly, part: Any, path: str, layer: Any, device: str) -> None:
        convert(self, part, path, layer, device)
        left.extend(weakref.ref(thing) for thing in (part, layer))
        if len(left) > 6:
            _held = [part]  # as a library's frames hold it
            raise MemoryError("no more memory")

    monkeypatch.setattr(Int8WeightOnly, "convert", failing)
    with pytest.raises(ApplyFailed, match="no more memory") as caught:
        load(folder, "int8_weight_only:transformer", **asked())
    assert caught.value.__cause__ is not None
    assert len(left) > 6
    assert alive(left) == 0


def test_nor_does_a_failed_placement(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Any] = []

    def failing(self: OnGpu, pipe: Any, device: str) -> Any:
        left.extend(map(weakref.ref, (pipe, *modules_of(pipe).values())))
        raise torch.OutOfMemoryError("no more device memory")

    monkeypatch.setattr(OnGpu, "apply", failing)
    with pytest.raises(ApplyFailed) as caught:
        load(folder, "int8_weight_only:transformer", **asked())
    assert caught.value.__cause__ is not None
    assert len(left) == 5
    assert alive(left) == 0


def test_nor_a_failed_load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third component cannot be loaded."""
    from transformers import T5EncoderModel

    left: list[Any] = []
    real = diffusers.AutoencoderKL.from_pretrained

    def loading(*given: Any, **options: Any) -> Any:
        part = real(*given, **options)
        left.append(weakref.ref(part))
        return part

    def failing(*_: Any, **options: Any) -> Any:
        half = torch.nn.Linear(64, 64)
        left.append(weakref.ref(half))
        raise OSError(f"the disk is gone: {options['subfolder']}")

    monkeypatch.setattr(diffusers.AutoencoderKL, "from_pretrained", loading)
    monkeypatch.setattr(T5EncoderModel, "from_pretrained", failing)
    with pytest.raises(LoadFailed) as caught:
        load(folder, "int8_weight_only:transformer", **asked())
    assert re.fullmatch(
        rf"text_encoder_2 of {folder.name} \(0\.00 GiB\) could not be loaded after vae, text_encoder \(0\.00 GiB\): "
        r"the disk is gone: text_encoder_2\. Nothing of it is kept in memory\. T5EncoderModel\.from_pretrained"
        rf'\("{folder}", subfolder="text_encoder_2"\) by itself should say the same: mend that, then load again\.',
        str(caught.value),
    )
    assert caught.value.__cause__ is not None
    assert len(left) == 2
    assert alive(left) == 0


def test_nor_the_rest_of_a_pipeline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Any] = []

    def failing(*_: Any, **parts: Any) -> Any:
        left.extend(weakref.ref(part) for part in parts.values() if isinstance(part, torch.nn.Module))
        raise MemoryError

    monkeypatch.setattr(diffusers.FluxPipeline, "from_pretrained", failing)
    with pytest.raises(LoadFailed, match=r"the rest of .* MemoryError.* choose a plan that needs less"):
        load(folder, "int8_weight_only:transformer", **asked())
    assert len(left) == 4
    assert alive(left) == 0


# ---- other sources ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_component_comes_from_its_own_file(folder: Path, tmp_path: Path) -> None:
    pipe, file = build("flux", dtype=torch.bfloat16), str(tmp_path / "x.safetensors")
    changed = {name: weight.half() + 1 for name, weight in pipe.transformer.state_dict().items()}
    save_file(changed, file)
    pipe.transformer.half()
    model = measure(pipe, "flux", f"folder {folder}", {"transformer": file})
    loaded = assembled(model, lambda _: None)
    assert torch.equal(loaded.transformer.proj_out.weight, changed["proj_out.weight"])
    assert (loaded.transformer.dtype, loaded.vae.dtype) == (torch.float16, torch.bfloat16)
