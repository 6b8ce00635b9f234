"""Where nothing fits: which smaller calls are tried, in which order, and when none is."""

from pathlib import Path
from typing import Any

import pytest

from memplan.errors import BadInput
from memplan.faces import api, nearest
from memplan.faces.nearest import Nearest, nearest_call, smaller_calls
from memplan.facts import GIB, MIB, Facts, Trace
from tests.faces import small
from tests.pipelines import build, inputs


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test's own."""
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path / "cache"))


def trace(**arguments: object) -> Trace:
    """A dry run of a call with these arguments."""
    return Trace("cuda", (), (), arguments=tuple((name, str(value)) for name, value in arguments.items()))


SIZES = [[{"height": h, "width": 2 * h} for h in (384, 256, 192)]]


@pytest.mark.parametrize(
    ("known", "call", "changes"),
    [
        ({}, {}, []),
        ({"num_images_per_prompt": 4}, {}, [[{"num_images_per_prompt": 1}]]),
        ({"num_images_per_prompt": 4}, {"num_images_per_prompt": 1}, []),
        ({"num_frames": 81}, {}, [[{"num_frames": 57}, {"num_frames": 37}, {"num_frames": 17}]]),
        ({"num_frames": 9}, {}, [[{"num_frames": 5}, {"num_frames": 1}]]),
        ({"num_frames": 1}, {}, []),
        ({"height": 512, "width": 1024}, {}, SIZES),
        ({"height": 512, "width": 1024, "num_frames": 5}, {}, [[{"num_frames": 1}], *SIZES]),
        ({"height": 512}, {}, []),
        ({"height": 64, "width": 64}, {}, [[{"height": 32, "width": 32}]]),
        ({"height": 32, "width": 32}, {}, []),
    ],
)
def test_smaller_calls(known: dict[str, object], call: dict[str, Any], changes: list[Any]) -> None:
    assert smaller_calls(trace(**known), call) == changes


def test_a_slow_call_may_have_fewer_steps() -> None:
    known = trace(num_inference_steps=50, num_images_per_prompt=4)
    fewer = [[{"num_inference_steps": steps} for steps in (37, 25, 12)], [{"num_images_per_prompt": 1}]]
    assert smaller_calls(known, {}, slow=True) == fewer
    assert smaller_calls(known, {}) == fewer[1:]
    assert smaller_calls(trace(num_inference_steps=1), {}, slow=True) == []


# ---- what is tried ---------------------------------------------------------------------------------------------------
class Answers:
    """Stands in for the dry run: calls up to a size are as if the card were larger, and some sizes are refused."""

    def __init__(self, fits: int, refused: tuple[int, ...] = ()) -> None:
        self.fits, self.refused, self.asked = fits, refused, list[int]()

    def __call__(self, source: Any, call: dict[str, Any], **_: Any) -> Facts:
        height = call["height"]
        self.asked.append(height)
        if height in self.refused:
            raise BadInput("not that size")
        return small.facts(8 if height <= self.fits else 1)


def tried(monkeypatch: pytest.MonkeyPatch, answers: Answers) -> Nearest:
    """What comes of a call of 1024 x 1024 for which nothing fits."""
    monkeypatch.setattr(nearest, "facts", answers)
    return nearest_call("small", small.found(1), height=1024, width=1024)


@pytest.mark.parametrize(
    ("fits", "refused", "asked", "best"),
    [
        (0, (), [384], None),
        (384, (), [384, 512], 384),
        (512, (), [384, 512, 768], 512),
        (900, (), [384, 512, 768], 768),
        (512, (384,), [384, 512, 768], 512),
    ],
)
def test_the_smallest_is_tried_first(
    monkeypatch: pytest.MonkeyPatch, fits: int, refused: tuple[int, ...], asked: list[int], best: int | None
) -> None:
    answers = Answers(fits, refused)
    found = tried(monkeypatch, answers)
    assert answers.asked == asked
    assert [change["height"] for change in found.tried] == asked
    assert (found.change or {}).get("height") == best
    assert (found.plan is None) == (best is None)
    if found.plan is not None:
        assert found.plan.fits
        assert found.plan.run.facts.machine.vram == 8 * GIB


def test_nothing_is_tried_where_weights_alone_are_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(1024)
    monkeypatch.setattr(nearest, "facts", answers)
    assert nearest_call("small", small.found(0.2), height=1024, width=1024) == Nearest(weights=True)
    assert nearest_call("small", small.found(3, ram=0.5), height=1024, width=1024).weights
    assert not answers.asked


def test_each_try_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(nearest, "facts", Answers(384))
    nearest_call("small", small.found(1), progress=said.append, height=1024, width=1024)
    assert said == ["trying a smaller call, height=384, width=384", "trying a smaller call, height=512, width=512"]


# ---- on a real pipeline ----------------------------------------------------------------------------------------------
@pytest.mark.wide
def test_the_nearest_call_is_the_largest_that_fits() -> None:
    pipe, nowhere = build("flux", "medium"), api.Target(vram=0.25, ram=8)
    call: dict[str, Any] = {**inputs("flux", "medium"), "height": 1024, "width": 1024}
    large, fair = (least(pipe, nowhere, {**call, "height": p, "width": p}) for p in (1024, 768))
    assert large > fair + MIB
    target = api.Target(vram=(large + fair) / 2 / GIB, ram=8)
    found = api.recommend(pipe, target=target, **call)
    assert not found.picks
    near = nearest_call(pipe, found, target=target, **call)
    assert near.change == {"height": 768, "width": 768}
    assert near.plan is not None
    assert near.plan.fits


def least(pipe: Any, target: api.Target, call: dict[str, Any]) -> int:
    """The smallest peak of all plans for a call that does not fit."""
    return api.recommend(pipe, target=target, **call).nearest.bill.peak.memory.required
