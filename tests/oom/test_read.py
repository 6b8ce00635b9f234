"""Errors' texts: which memory ran out and every figure, for the wordings in cases.json; and what is none."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from memplan.facts import GIB, MIB
from memplan.oom import MEMORY, POSSIBLY, Allocation, Other, read

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "cases.json").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_every_wording(case: dict[str, Any]) -> None:
    found, expected = read(case["classes"], case["text"]), case["expected"]
    if expected is None:
        assert found is None
        return
    assert found is not None
    others = tuple(Other(*other) for other in expected.pop("others", ()))
    assert asdict(found) == asdict(Allocation(**expected, others=others))


def test_every_kind_of_answer_is_among_them() -> None:
    known = [case["expected"] for case in CASES if case["expected"]]
    assert {case["certainty"] for case in known} == {MEMORY, POSSIBLY}
    assert {case["kind"] for case in known} >= {"cuda", "rocm", "xpu", "mps", "host", "pinned", ""}
    assert len(CASES) - len(known) >= 15


def test_what_is_missing() -> None:
    assert Allocation("cuda", asked=2 * GIB, free=512 * MIB).missing == 1536 * MIB
    assert Allocation("cuda", asked=MIB, free=GIB).missing is None  # there is room in all, though not in one piece
    capped = Allocation("cuda", asked=GIB, free=8 * GIB, allocated=3 * GIB, unallocated=512 * MIB, limit=4 * GIB)
    assert capped.missing == 512 * MIB
    metal = Allocation("mps", asked=2 * GIB, allocated=16 * GIB, in_use=17 * GIB, limit=18 * GIB)
    assert metal.missing == GIB
    assert Allocation("cuda", asked=GIB).missing is None


def test_what_a_plan_may_use() -> None:
    assert Allocation("cuda", capacity=8 * GIB).usable == 8 * GIB
    assert Allocation("cuda", capacity=8 * GIB, others=(Other(7, GIB),)).usable == 7 * GIB
    named = Allocation("cuda", capacity=8 * GIB, free=GIB, in_use=4 * GIB, others=(Other(7, GIB),))
    assert named.usable == 5 * GIB  # what is free, and what this process held
    assert Allocation("cuda", capacity=8 * GIB, limit=3 * GIB).usable == 3 * GIB
    assert Allocation("cuda").usable is None
