"""All or nothing: what apply() makes real, undo() takes back, and a failure leaves nothing behind."""

import gc
import weakref
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from memplan import applier
from memplan.applier import apply
from memplan.errors import ApplyFailed, BadInput
from memplan.probes.sources.modules import as_pipeline
from memplan.strategies import GroupOffload, LayerwiseCasting, ModelOffload, OnGpu, VaeTiling
from memplan.strategy import Strategy, Undo, in_order
from tests.pipelines import build
from tests.test_strategy_laws import attributes, picture

PLAN: tuple[Strategy, ...] = (OnGpu("vae"), GroupOffload("transformer", "block_level", 1), VaeTiling())


@dataclass(frozen=True)
class Breaks(OnGpu):
    """A strategy that fails."""

    name: ClassVar[str] = "breaks"

    def apply(self, pipe: Any, device: str) -> Undo:
        raise RuntimeError("out of luck")


def test_order_is_format_then_calls_then_placement() -> None:
    casting = LayerwiseCasting("transformer")
    ordered = in_order((*PLAN, casting))
    assert ordered[:2] == (casting, VaeTiling())
    assert set(ordered[2:]) == set(PLAN[:2])


def test_two_strategies_on_one_seat_are_refused() -> None:
    pipe = build("flux")
    with pytest.raises(BadInput, match="on_gpu:vae and model_offload both decide the placement of vae: keep one"):
        apply((ModelOffload(("vae", "transformer")), OnGpu("vae")), pipe, "cpu")


def test_undo_takes_everything_back_and_once() -> None:
    pipe = build("flux")
    expected, before = picture(pipe, "flux"), attributes(pipe)
    applied = apply(PLAN, pipe, "cpu")
    assert torch.equal(picture(pipe, "flux"), expected)
    applied.undo()
    applied.undo()
    assert attributes(pipe) == before
    assert torch.equal(picture(pipe, "flux"), expected)


def test_what_is_applied_says_what_stays() -> None:
    pipe = build("flux")
    with apply((LayerwiseCasting("transformer"), OnGpu("vae")), pipe, "cpu") as applied:
        assert str(applied) == repr(applied)
        assert "<Applied: layerwise_casting:transformer + on_gpu:vae. layerwise_casting can't be" in str(applied)
        assert applied.irreversible[0] in str(applied)
    assert str(apply((OnGpu("vae"),), build("flux"), "cpu")) == "<Applied: on_gpu:vae>"


def test_as_a_context_manager_it_undoes_itself_after_an_error_too() -> None:
    pipe = build("flux")
    before = attributes(pipe)
    with pytest.raises(AttributeError), apply(PLAN, pipe, "cpu"):
        pipe.no_such_attribute()
    assert attributes(pipe) == before


def test_a_failure_undoes_what_had_been_done() -> None:
    pipe = build("flux")
    before = attributes(pipe)
    with pytest.raises(ApplyFailed, match="out of luck; the pipeline is as it was before") as failed:
        apply((*PLAN, Breaks("text_encoder")), pipe, "cpu")
    assert isinstance(failed.value.__cause__, RuntimeError)
    assert attributes(pipe) == before
    apply(PLAN, pipe, "cpu").undo()


def test_a_failure_inside_the_library_undoes_its_own_half() -> None:
    pipe = build("flux")
    before = attributes(pipe)
    with pytest.raises(ApplyFailed, match="streams"):
        apply((GroupOffload("transformer", stream=True),), pipe, "cpu")
    assert attributes(pipe) == before


def test_a_failure_says_what_stays() -> None:
    pipe = build("flux")
    with pytest.raises(ApplyFailed, match=r"layerwise_casting stays: .* reload the component"):
        apply((LayerwiseCasting("transformer"), Breaks("vae")), pipe, "cpu")


def test_a_second_plan_is_refused_until_the_first_is_undone() -> None:
    pipe = build("flux")
    with apply(PLAN, pipe, "cpu"), pytest.raises(BadInput, match="call undo"):
        apply((OnGpu("text_encoder"),), pipe, "cpu")
    apply((OnGpu("text_encoder"),), pipe, "cpu").undo()


def test_a_second_plan_for_a_shared_component_is_refused() -> None:
    part = build("flux").vae
    with apply((OnGpu("model"),), as_pipeline(part), "cpu"):
        for again in (as_pipeline(part), as_pipeline({"decoder": part, "other": torch.nn.Linear(1, 1)})):
            with pytest.raises(
                BadInput, match=f"{next(iter(again.components))} carries a plan already, on_gpu:model: call undo"
            ):
                apply((), again, "cpu")
    apply((OnGpu("model"),), as_pipeline(part), "cpu").undo()


def test_a_pipeline_is_not_kept_alive() -> None:
    pipe = build("sd15")
    apply((OnGpu("vae"),), pipe, "cpu")
    alive = weakref.ref(pipe)
    del pipe
    gc.collect()
    assert alive() is None


def test_offload_over_casting_is_undone_down_to_the_casting() -> None:
    pipe = build("flux")
    apply((LayerwiseCasting("transformer"),), pipe, "cpu")
    expected, before = picture(pipe, "flux"), attributes(pipe)
    undo = GroupOffload("transformer").apply(pipe, "cpu")
    assert torch.equal(picture(pipe, "flux"), expected)
    undo()
    assert attributes(pipe) == before
    assert torch.equal(picture(pipe, "flux"), expected)


def test_what_cannot_be_undone_is_told() -> None:
    applied = apply((LayerwiseCasting("transformer"), OnGpu("vae")), build("flux"), "cpu")
    assert len(applied.irreversible) == 1
    assert "from_pretrained" in applied.irreversible[0]


def test_glibc_keeps_nothing_while_a_plan_is_applied_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are mapped by themselves meanwhile; afterwards, also where it fails, it is where it comes to by itself."""
    said: list[tuple[int, int]] = []
    monkeypatch.setattr(applier, "sys", SimpleNamespace(platform="linux"))
    library = SimpleNamespace(mallopt=lambda option, value: said.append((option, value)))
    monkeypatch.setattr(applier, "ctypes", SimpleNamespace(CDLL=lambda name: library))
    apply((OnGpu("vae"),), build("flux"), "cpu").undo()
    assert said == [(-3, 1 << 16), (-3, 32 << 20), (-1, 64 << 20)]
    with pytest.raises(ApplyFailed):
        apply((Breaks("vae"),), build("flux"), "cpu")
    assert said[3:] == said[:3]
    monkeypatch.setattr(applier, "sys", SimpleNamespace(platform="darwin"))
    apply((OnGpu("vae"),), build("flux"), "cpu").undo()
    assert len(said) == 6
