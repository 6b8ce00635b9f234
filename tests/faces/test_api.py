"""The Python face on live pipelines: what it answers, what it does, and what it leaves alone."""

import random
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.modules import module as torch_module

import memplan
from memplan import planner
from memplan.errors import BadInput, NothingFits
from memplan.faces import api
from memplan.facts import GIB, MIB, Trace
from memplan.probe.twin import modules_of
from memplan.strategies import GroupOffload
from tests.pipelines import build, inputs

ROOM = api.Target(vram=4, ram=8)
SCARCE = api.Target(vram=80 / 1024, ram=8)
"""Less than a medium FLUX weighs."""
STREAMED = api.Target(vram=(512 + 80) / 1024, ram=8)
"""As little on a card, whose context takes 512 MiB."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(pipe: Any, family: str) -> torch.Tensor:
    """The output of one small call, always from the same seed."""
    output: torch.Tensor = pipe(**inputs(family))[0]
    return output


def asked(family: str, **other: Any) -> dict[str, Any]:
    """The arguments of one small call, and others."""
    return inputs(family) | other


def footprint(pipe: Any) -> dict[str, Any]:
    """Names of all attributes and hooks of the pipeline's modules; where each weight is and how it is stored."""
    found: dict[str, Any] = {"pipe": sorted(vars(pipe))}
    for name, part in modules_of(pipe).items():
        for path, module in part.named_modules():
            hooks = [len(module._forward_hooks), len(module._forward_pre_hooks)]
            found[f"{name}.{path}"] = (sorted(vars(module)), hooks, module.training)
        for path, weight in part.state_dict(keep_vars=True).items():
            found[f"{name}.{path} weight"] = (weight.data_ptr(), weight.dtype, weight.device, weight.requires_grad)
    return found


# ---- what is asked ---------------------------------------------------------------------------------------------------
def test_probe_measures_a_live_pipeline() -> None:
    pipe = build("wan")
    model = api.probe(pipe)
    assert (model.class_name, model.source) == ("WanPipeline", "live WanPipeline")
    parts = modules_of(pipe)
    assert [c.name for c in model.components] == list(parts)
    part = parts["transformer"]
    assert model.component("transformer").size == sum(w.nbytes for w in (*part.parameters(), *part.buffers()))


def test_recommend_answers_for_the_machine_that_is_named(cache: Path) -> None:
    found = api.recommend(build("flux"), target=api.Target(vram=4, ram=8, reserve=1), **inputs("flux"))
    machine = found.facts.machine
    assert (machine.vram, machine.ram) == (3 * GIB, 8 * GIB)
    assert dict(found.picks).keys() == set(planner.PREFERENCES)
    assert not cache.exists(), "a live pipeline may change between two calls"


def test_price_is_the_bill_that_recommend_shows() -> None:
    pipe, call, target = build("flux"), inputs("flux"), api.Target(vram=0.5155, ram=8)
    pick = api.recommend(pipe, target=target, **call).pick("quality")
    assert pick is not None
    assert str(pick) == "model_offload"
    assert api.price(pipe, pick.strategies, target=target, **call).bill == pick.bill
    assert api.price(pipe, ["model_offload"], target=target, **call).bill == pick.bill
    with pytest.raises(BadInput, match="no more than one tile"):
        api.price(pipe, ["model_offload", "vae_tiling"], target=target, **call)


def test_a_size_that_the_pipeline_chose_is_told() -> None:
    call = {k: v for k, v in inputs("sd15").items() if k not in ("height", "width")}
    pipe = build("sd15")
    shown = dict(api.recommend(pipe, target=ROOM, **call).facts.trace.arguments)
    image = pipe(**call)[0]
    assert (shown["height"], shown["width"]) == (str(image.shape[-2]), str(image.shape[-1]))
    assert (shown["num_images_per_prompt"], shown["num_inference_steps"]) == ("1", "2")


def test_frames_that_the_pipeline_chose_are_told() -> None:
    call = {k: v for k, v in inputs("wan").items() if k != "num_frames"}
    shown = dict(api.recommend(build("wan"), target=ROOM, **call).facts.trace.arguments)
    assert shown["num_frames"] == "81"
    assert (shown["height"], shown["width"]) == ("32", "32")


def test_a_call_without_a_prompt_gets_a_usual_one() -> None:
    call = {k: v for k, v in inputs("flux").items() if k != "prompt"}
    shown = dict(api.recommend(build("flux"), target=ROOM, **call).facts.trace.arguments)
    assert shown["prompt"].startswith("'A lighthouse")


# ---- what is refused -------------------------------------------------------------------------------------------------
def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^FluxPipeline .*'heigth'"):
        api.recommend(build("flux"), target=ROOM, **inputs("flux"), heigth=32)


def test_a_size_is_refused_in_the_pipelines_words() -> None:
    pipe, call = build("cogvideox"), asked("cogvideox", height=33)
    with pytest.raises(ValueError, match="divisible by 8") as words:
        pipe(**call)
    with pytest.raises(BadInput, match=re.escape(str(words.value))):
        api.recommend(pipe, target=ROOM, **call)


def test_an_unknown_preference_is_refused_before_any_work() -> None:
    with pytest.raises(BadInput, match="unknown preference 'fast': use one of quality, speed, memory, balanced"):
        api.auto_optimize(None, prefer="fast")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to plan for")
def test_without_a_gpu_one_must_be_named() -> None:
    with pytest.raises(BadInput, match="no GPU is visible here"):
        api.recommend(build("flux"), **inputs("flux"))


# ---- what is left alone ----------------------------------------------------------------------------------------------
@contextmanager
def unchanged(pipe: Any, generator: torch.Generator) -> Generator[None]:
    """Checks that nothing was touched that a later call could notice."""

    def state() -> tuple[Any, ...]:
        torch_state = torch.get_rng_state().tolist(), torch.get_default_dtype(), torch.is_grad_enabled()
        hooks = torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks
        modes = torch._C._len_torch_dispatch_stack(), torch._C._len_torch_function_stack()
        chance = random.getstate(), str(np.random.get_state()), generator.get_state().tolist()
        return *torch_state, *(dict(table) for table in hooks), *modes, *chance, footprint(pipe)

    before = state()
    yield
    assert state() == before


@pytest.mark.parametrize("with_generator", [True, False])
@pytest.mark.parametrize("family", ["flux", "wan"])
def test_recommend_changes_nothing(family: str, with_generator: bool) -> None:
    pipe, call = build(family), inputs(family)
    generator = call["generator"]
    if not with_generator:
        del call["generator"]
    with unchanged(pipe, generator):
        api.recommend(pipe, target=ROOM, **call)


def test_a_refused_call_changes_nothing() -> None:
    pipe, call = build("cogvideox"), inputs("cogvideox")
    with unchanged(pipe, call["generator"]), pytest.raises(BadInput):
        api.recommend(pipe, target=ROOM, **asked("cogvideox", height=33))
    with unchanged(pipe, call["generator"]), pytest.raises(BadInput):
        api.recommend(pipe, target=ROOM, **call, negative_prompt_embeds=torch.zeros(1))


# ---- what is done ----------------------------------------------------------------------------------------------------
def test_auto_optimize_applies_the_pick_and_undoes_it() -> None:
    pipe = build("flux", "medium")
    expected, before = picture(pipe, "flux"), footprint(pipe)
    with memplan.auto_optimize(pipe, prefer="quality", target=SCARCE, device="cpu", **inputs("flux")) as applied:
        offloaded = [s for s in applied.strategies if isinstance(s, GroupOffload)]
        assert [s.stream for s in offloaded] == [False], "a rehearsal on the CPU has no streams"
        assert not applied.irreversible
        assert footprint(pipe) != before
        assert torch.equal(picture(pipe, "flux"), expected)
    assert footprint(pipe) == before
    assert torch.equal(picture(pipe, "flux"), expected)
    assert "stream=True" in str(api.recommend(pipe, target=STREAMED, **inputs("flux")).pick("quality"))


def test_nothing_fits_says_what_is_missing() -> None:
    pipe, call, tiny = build("flux"), inputs("flux"), api.Target(vram=0.25, ram=8)
    before = footprint(pipe)
    nearest = api.recommend(pipe, target=tiny, **call).nearest
    assert nearest.margin < -256 * MIB
    with pytest.raises(NothingFits, match=re.escape(f", {-nearest.margin / MIB:.0f} MiB more than the 0.25 GiB")):
        api.auto_optimize(pipe, target=tiny, **call)
    assert footprint(pipe) == before


# ---- a smaller call --------------------------------------------------------------------------------------------------
def trace(**arguments: object) -> Trace:
    """A dry run of a call with these arguments."""
    return Trace("cuda", (), (), arguments=tuple((name, str(value)) for name, value in arguments.items()))


@pytest.mark.parametrize(
    ("known", "call", "changes"),
    [
        ({}, {}, []),
        ({"num_images_per_prompt": 4}, {}, [{"num_images_per_prompt": 1}]),
        ({"num_images_per_prompt": 4}, {"num_images_per_prompt": 1}, []),
        ({"num_frames": 81}, {}, [{"num_frames": 57}, {"num_frames": 37}, {"num_frames": 17}]),
        ({"num_frames": 9}, {}, [{"num_frames": 5}, {"num_frames": 1}]),
        ({"num_frames": 1}, {}, []),
        ({"height": 512, "width": 1024}, {}, [{"height": h, "width": 2 * h} for h in (384, 256, 192)]),
        ({"height": 512}, {}, []),
        ({"height": 64, "width": 64}, {}, [{"height": 32, "width": 32}]),
        ({"height": 32, "width": 32}, {}, []),
    ],
)
def test_smaller_calls(known: dict[str, object], call: dict[str, Any], changes: list[dict[str, int]]) -> None:
    assert api.smaller_calls(trace(**known), call) == changes


def test_the_nearest_call_is_the_largest_that_fits() -> None:
    pipe, call, nowhere = build("flux", "medium"), inputs("flux", "medium"), api.Target(vram=0.25, ram=8)
    large, small = (least(pipe, nowhere, {**call, "height": p, "width": p}) for p in (384, 256))
    assert large > small + MIB
    target = api.Target(vram=(large + small) / 2 / GIB, ram=8)
    found = api.recommend(pipe, target=target, **call)
    change, plan = api.nearest_call(pipe, found, target=target, **call) or ({}, found.nearest)
    assert not found.picks
    assert change == {"height": 256, "width": 256}
    assert plan.fits


def test_there_may_be_no_smaller_call_that_fits() -> None:
    pipe, call, nowhere = build("flux"), asked("flux", height=64, width=64), api.Target(vram=0.25, ram=8)
    assert api.nearest_call(pipe, api.recommend(pipe, target=nowhere, **call), target=nowhere, **call) is None


def least(pipe: Any, target: api.Target, call: dict[str, Any]) -> int:
    """The smallest peak of all plans for a call that does not fit."""
    return api.recommend(pipe, target=target, **call).nearest.bill.peak.memory.required
