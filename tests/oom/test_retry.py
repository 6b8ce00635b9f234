"""Retry: only what failed is made again, the picture is that of the plan from the start, and nothing is left behind."""

import gc
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch
from torch import nn

import memplan
from memplan.errors import BadInput
from memplan.faces import measuring, store
from memplan.faces.history import database
from memplan.faces.oom import retry as retries
from memplan.faces.oom.less import Less
from memplan.faces.oom.retry import ATTEMPTS, Retry, retrying
from memplan.faces.oom.scene import scene
from memplan.faces.target import machine
from memplan.facts import Facts
from memplan.probes.fakes.twin import live_twin, modules_of
from tests.oom.budget import Breaker, Budget
from tests.oom.limit import watched
from tests.pipelines import FAMILIES, build, inputs
from tests.some import some
from tests.test_strategy_laws import attributes, picture

FACTS = measuring.facts
RETRIED = (*FAMILIES, "auraflow", "lumina2", "chroma", "pixart_sigma", "qwenimage")
WIDER = {"height": 64, "width": 64, "num_images_per_prompt": 2}
"""A call whose decode has two pictures of four tiles each."""


@cache
def known(family: str, wider: bool) -> Facts:
    """A dry run of the family's call, once for all tests."""
    call = {name: value for name, value in inputs(family).items() if name != "generator"}
    return FACTS(build(family), call | (WIDER if wider else {}), target=memplan.Target(vram=1))


@pytest.fixture(autouse=True)
def one_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pipeline's is the same every time."""

    def facts(pipe: Any, call: dict[str, Any], *, target: memplan.Target) -> Facts:
        found = known(FAMILY[type(pipe).__name__], "num_images_per_prompt" in call)
        return replace(found, machine=machine(target))

    monkeypatch.setattr(measuring, "facts", facts)


FAMILY: dict[str, str] = {}


def made(family: str) -> Any:
    pipe = build(family)
    FAMILY[type(pipe).__name__] = family
    return pipe


def wider(pipe: Any, family: str) -> torch.Tensor:
    output: torch.Tensor = pipe(**inputs(family) | WIDER)[0]
    return output


def outcome(pipe: Any, family: str) -> torch.Tensor | Exception:
    """The picture, or the error that it ended with."""
    try:
        return picture(pipe, family)
    except torch.OutOfMemoryError as error:
        return error


def left(pipe: Any) -> tuple[Any, ...]:
    """All that a retry could leave behind; values of a pipeline's own attributes are those of its last step."""
    found = attributes(pipe)
    return found.pop("pipe").keys(), found, type(pipe).__call__


def deep(part: nn.Module) -> nn.Module:
    """A module in the middle of a component: what is before it has run when it fails."""
    layers = [m for m in part.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d)]
    return layers[len(layers) // 2]


OWN_CODE = nn.Identity()
"""Runs where a pipeline makes pictures of what its VAE has decoded."""


def doors(pipe: Any) -> list[tuple[str, nn.Module, int]]:
    """Phases, a module that runs in them once for each call of the component, and the entry that fails."""
    parts = modules_of(pipe)
    denoiser = parts.get("transformer") or parts["unet"]
    return [
        ("text encoding", deep(parts["text_encoder"]), 0),
        ("step 1", deep(denoiser), 0),
        ("step 2", deep(denoiser), 1),
        ("decoding", deep(pipe.vae.decoder), 0),
        ("post-processing", OWN_CODE, 0),
    ]


def with_own_code(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has OWN_CODE run in post-processing."""
    processor = getattr(pipe, "image_processor", None) or pipe.video_processor
    name = "postprocess" if hasattr(pipe, "image_processor") else "postprocess_video"
    original = getattr(processor, name)

    def fails_first(*args: Any, **given: Any) -> Any:
        OWN_CODE(next(iter((*args, *given.values()))))
        return original(*args, **given)

    monkeypatch.setattr(processor, name, fails_first)


def planned(family: str, strategies: Any, at: int) -> tuple[torch.Tensor, int]:
    """The picture of a pipeline that had those strategies from the start, and the entries of a phase's module."""
    pipe = build(family)
    for strategy in strategies:
        strategy.apply(pipe, "cpu")
    with Breaker(nn.Identity()).watching() as untouched:
        found = picture(pipe, family)
    return found, untouched.entries[id(doors(pipe)[at][1])]


# ---- every phase, and every number of failures -----------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("case", some((f"{f} {at}" for f in RETRIED for at in range(5)), "sd15 2"))
def test_only_what_failed_is_made_again_and_the_picture_is_that_of_the_plan(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each phase fails up to one time more than there are attempts: 260 cases for five phases of 13 families.

    Where the pipeline's own code fails, the whole call is made again.
    """
    family, at = case.split()
    pipe = made(family)
    with_own_code(pipe, monkeypatch)
    picture(pipe, family)  # some pipelines keep what they made in their first call
    with Breaker(nn.Identity()).watching() as untouched:
        picture(pipe, family)
    before, plans = left(pipe), dict[Any, tuple[torch.Tensor, int]]()
    parts = modules_of(pipe)
    phase, module, entry = doors(pipe)[int(at)]
    for times in range(1, ATTEMPTS + 2):
        with Breaker(module, entry, times).watching() as breaker, retrying(pipe) as retry:
            found = outcome(pipe, family)
        told = (family, phase, times, retry.strategies)
        assert left(pipe) == before, told
        if times > ATTEMPTS:
            assert not retry.strategies, told
            assert found is breaker.errors[0], told
            assert len(breaker.errors) == ATTEMPTS + 1, told
            continue
        assert isinstance(found, torch.Tensor), told
        assert len(breaker.errors) == times <= len(retry.strategies) == len(set(retry.strategies)), told
        if retry.strategies not in plans:
            plans[retry.strategies] = planned(family, retry.strategies, int(at))
        expected, entries = plans[retry.strategies]
        assert torch.equal(found, expected), told
        for name, part in parts.items():
            once = untouched.entries[id(part)]
            inside = any(m is module for m in part.modules()) and name != "vae"  # which is decoded by another way
            again = times * once if module is OWN_CODE else times if inside else 0
            assert breaker.entries[id(part)] == once + again, (told, name)
        once = untouched.entries[id(module)] if module is OWN_CODE else entries  # one for each tile, where there are
        assert breaker.entries[id(module)] == once + times, told


# ---- bytes -----------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("family", some(("sd15", "sdxl", "sd3"), "sd15"))
def test_a_decode_that_holds_too_many_bytes_is_made_in_parts_from_the_same_latents(family: str) -> None:
    """So little may be held that no offloading does."""
    pipe = made(family)
    with watched(pipe) as where, Budget(pipe, lambda: where.phase == "decoding") as free:
        whole = wider(pipe, family)
    activations = free.peak - sum(free.parts.values())
    most = free.parts[pipe.vae] + 0.7 * activations
    with (
        watched(pipe) as there,
        retrying(pipe) as retry,
        Budget(pipe, lambda: there.phase == "decoding", most) as budget,
    ):
        found = wider(pipe, family)
    assert budget.failures
    assert {"vae_tiling", "vae_slicing"} & {strategy.name for strategy in retry.strategies}
    again = build(family)
    for strategy in retry.strategies:
        strategy.apply(again, "cpu")
    assert torch.equal(found, wider(again, family))
    assert found.shape == whole.shape


# ---- the whole call --------------------------------------------------------------------------------------------------
def test_where_the_pipelines_own_code_fails_the_whole_call_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same seed: the generator has its state again."""
    pipe = made("sd15")
    expected, errors = picture(pipe, "sd15"), [torch.OutOfMemoryError("CUDA out of memory.")]
    original = pipe.image_processor.postprocess

    def failing(*args: Any, **given: Any) -> Any:
        if errors:
            raise errors.pop()
        return original(*args, **given)

    monkeypatch.setattr(pipe.image_processor, "postprocess", failing)
    with Breaker(pipe.unet).watching() as breaker, retrying(pipe) as retry:
        found = picture(pipe, "sd15")
    assert torch.equal(found, expected)
    assert breaker.entries[id(pipe.unet)] == 4
    assert len(retry.strategies) == 1


def test_a_component_that_wrote_to_what_it_was_given_is_not_called_again_in_place() -> None:
    pipe = made("sd15")
    expected, failures = picture(pipe, "sd15"), [1]

    def spoil(_: Any, args: Any, given: Any) -> None:
        if failures:
            failures.pop()
            args[0].add_(1)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with Breaker(pipe.text_encoder).watching() as breaker, retrying(pipe):
        handle = pipe.unet.register_forward_pre_hook(spoil, with_kwargs=True)
        try:
            assert torch.equal(picture(pipe, "sd15"), expected)
        finally:
            handle.remove()
    assert breaker.entries[id(pipe.text_encoder)] == 4


# ---- errors ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_other_errors_pass_untouched(kind: type[BaseException]) -> None:
    pipe = made("sd15")
    picture(pipe, "sd15")
    before = left(pipe)
    error = kind("out of memory")

    def fails(*_: Any) -> None:
        raise error

    handle = pipe.vae.decoder.register_forward_pre_hook(fails)
    with pytest.raises(kind) as caught, memplan.guard(pipe, retry=True):
        picture(pipe, "sd15")
    handle.remove()
    assert caught.value is error
    assert left(pipe) == before


def test_a_plan_that_breaks_the_call_does_not_hide_the_first_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, raised = made("sd15"), [ValueError("ours"), torch.OutOfMemoryError("CUDA out of memory.")]

    def fails(*_: Any) -> None:
        raise raised.pop()

    handle = pipe.vae.decoder.register_forward_pre_hook(fails)
    with pytest.raises(torch.OutOfMemoryError), retrying(pipe):
        picture(pipe, "sd15")
    handle.remove()
    monkeypatch.setattr(Less, "_measured", lambda *_: 1 / 0)
    with Breaker(deep(pipe.unet), times=1).watching() as breaker, retrying(pipe):
        assert outcome(pipe, "sd15") is breaker.errors[0]
    assert picture(pipe, "sd15").isfinite().all()


def test_what_a_failed_attempt_held_is_free_before_the_next_and_the_place_is_still_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipe = made("sd15")
    with Breaker(pipe.unet.conv_out, 1, 9).watching() as breaker, retrying(pipe):
        error = outcome(pipe, "sd15")
    assert isinstance(error, Exception)
    assert breaker.kept == [0] * ATTEMPTS
    found = scene(error).place
    assert (found.phase, found.component, found.step, found.steps) == ("denoising", "unet", 2, 2)
    assert found.module == "conv_out"
    assert "in forward" in error.__notes__[0]
    assert len(breaker.errors) <= ATTEMPTS + 1
    assert capsys.readouterr().err.count("trying that again with") == len(breaker.errors) - 1


def test_a_pipeline_that_was_retried_can_go_while_the_program_goes_on() -> None:
    pipe = made("sd15")
    retry = Retry(pipe, lambda _: None)  # as `memplan run --retry` has for each pipeline
    own = type(pipe).__call__
    with Breaker(deep(pipe.unet), times=1).watching() as breaker:
        retry.around(pipe, own, (), inputs("sd15"))
    assert len(breaker.errors) == len(retry.strategies) == 1
    gone = ref(pipe.unet)
    del pipe, breaker
    gc.collect()
    assert gone() is None


def test_dry_runs_are_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though every pipeline is: a twin is one."""
    arounds: list[Any] = []
    monkeypatch.setattr(retries, "every_class", arounds.append)
    monkeypatch.setattr(retries, "Retry", lambda *_: pytest.fail("of a dry run"))
    retries.retry_everywhere()
    assert arounds[0](live_twin(made("sd15")).pipe, lambda pipe, word: word, ("a dog",), {}) == "a dog"


def test_a_call_that_fails_leaves_nothing_and_one_that_ends_well_what_it_took() -> None:
    pipe = made("sd15")
    picture(pipe, "sd15")
    before = left(pipe)
    with retrying(pipe) as retry:
        with Breaker(deep(pipe.unet), times=ATTEMPTS + 1).watching() as breaker:
            assert outcome(pipe, "sd15") is breaker.errors[0]
        assert (retry.strategies, left(pipe)[:2]) == ((), before[:2])
        with Breaker(deep(pipe.unet), times=1).watching():
            assert isinstance(outcome(pipe, "sd15"), torch.Tensor)
        assert len(retry.strategies) == 1
        assert left(pipe)[:2] != before[:2]
    assert left(pipe) == before


def test_a_fault_of_ours_hides_no_error_and_stops_no_call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = made("sd15")
    expected = picture(pipe, "sd15")
    with monkeypatch.context() as patch, Breaker(deep(pipe.unet), times=1).watching() as breaker, retrying(pipe):
        patch.setattr(retries, "place", lambda *_: 1 / 0)
        assert outcome(pipe, "sd15") is breaker.errors[0]
    with monkeypatch.context() as patch, retrying(pipe):
        patch.setattr(retries, "Doors", lambda *_: 1 / 0)
        assert torch.equal(picture(pipe, "sd15"), expected)
    said = capsys.readouterr().err
    assert "planning a retry failed with ZeroDivisionError" in said
    assert "this call is made without retries: ZeroDivisionError" in said


def test_nobody_needs_to_read_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    pipe = made("sd15")
    picture(pipe, "sd15")
    with Breaker(deep(pipe.unet), times=1).watching(), retrying(pipe) as retry:
        monkeypatch.setattr("sys.stderr", Gone())
        found = outcome(pipe, "sd15")
        monkeypatch.undo()
    assert isinstance(found, torch.Tensor)
    assert len(retry.strategies) == 1


def test_a_call_that_was_made_again_teaches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its peak is that of the attempt that failed, and its plan the last one."""
    monkeypatch.setenv(store.VARIABLE, str(tmp_path))
    pipe = made("sd15")
    with memplan.guard(pipe, retry=True, record=True):
        with Breaker(deep(pipe.unet), times=1).watching():
            picture(pipe, "sd15")
        picture(pipe, "sd15")
    first, second = database.load()
    assert "made again with less" in first.why_none
    assert not any(phase.predicted.allocated for phase in first.phases)
    assert "made again" not in second.why_none


def test_a_guard_retries_one_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"write memplan\.guard\(pipe, retry=True\)"), memplan.guard(retry=True):
        pass
    pipe, other = made("sd15"), made("sd15")
    expected = picture(pipe, "sd15")
    with Breaker(deep(other.unet), times=1).watching(), memplan.guard(pipe, retry=True):
        assert torch.equal(picture(pipe, "sd15"), expected)
        monkeypatch.setattr(retries, "forget", lambda _: pytest.fail("of another pipeline"))
        assert isinstance(outcome(other, "sd15"), torch.OutOfMemoryError)
