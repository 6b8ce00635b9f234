"""What techniques do to outputs is what they say of it, and what the file of figures and the pages show."""

from dataclasses import replace

import pytest

from memplan.facts.limits import EXACT
from memplan.strategies import STRATEGIES
from tests.compare.judging import CASES, CHANGED, ELSEWHERE, EQUAL, ROUNDED, SETTLED, Case, judged, row, rows
from tests.some import some

ALWAYS = ("group_offload", "layerwise_casting", "first_block_cache")
"""Those that every run judges."""
BY_NAME = {case.name: case for case in CASES}
CLASSES = {cls.name: cls for cls in STRATEGIES}


def test_every_technique_is_judged_or_says_why_not() -> None:
    assert BY_NAME.keys() | ELSEWHERE.keys() == CLASSES.keys()
    assert not BY_NAME.keys() & ELSEWHERE.keys()
    assert len(BY_NAME) == len(CASES)
    assert [one.plan for one in rows()] == [case.plan for case in CASES], "run `python -m tests.compare`"


def test_what_is_exact_changes_nothing_but_for_rounding_and_what_is_asked_for() -> None:
    """A bill's word and what was measured agree; what changes pictures on purpose is left to those who ask."""
    assert {one.does for one in rows()} == {EQUAL, ROUNDED, CHANGED}
    for one in rows():
        assert one.does == BY_NAME[one.strategy].does
        if one.loss != EXACT:
            assert one.does == CHANGED, one
        elif one.does == CHANGED:
            assert "changes the picture" in CLASSES[one.strategy].opt_in, one


@pytest.mark.slow
@pytest.mark.parametrize("name", some(BY_NAME, *ALWAYS))
def test_the_comparison_is_that_of_the_file(name: str) -> None:
    case: Case = BY_NAME[name]
    found = judged(case)
    assert not found.plan.failed
    assert found.undone in (True, None)
    assert (found.undone is None) == any("can't be undone" in note for note in found.notes)
    fresh, (kept,) = row(case, found), [one for one in rows() if one.strategy == name]
    left_out = {"does": "", "psnr": "", "ssim": "", "difference": ""}
    assert replace(fresh, **left_out) == replace(kept, **left_out)
    assert fresh.does in ((EQUAL, ROUNDED) if case.does == ROUNDED else (case.does,)), "sums differ by processor"
    if case.does == CHANGED:
        assert float(fresh.psnr) == pytest.approx(float(kept.psnr), abs=SETTLED)
        assert 0 < float(fresh.ssim) <= 1
        assert 0 < float(fresh.difference) <= 1
