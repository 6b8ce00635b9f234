"""What a REPL shows of the large values: what one wants to know of them, and not all that they hold."""

from dataclasses import replace

import pytest

from memplan import planner
from memplan.facts import Segment
from tests.faces import small

FOUND = small.found()
PICK = FOUND.picks[0][1]
MOST = 400
"""Characters."""


@pytest.mark.parametrize(
    "value",
    [PICK, PICK.run, PICK.bill, FOUND.facts, FOUND.facts.model, FOUND.facts.trace, FOUND.facts.model.components[0]],
    ids=lambda value: type(value).__name__,
)
def test_reprs_are_short_and_name_their_type(value: object) -> None:
    text = repr(value)
    assert text.startswith(f"<{type(value).__name__}")
    assert len(text) <= MOST
    assert "\n" not in text


def test_a_longer_dry_run_has_no_longer_repr() -> None:
    call = replace(FOUND.facts.trace.calls[0], segments=(Segment((), (), 0, 0, 0),) * 9999)
    trace = replace(FOUND.facts.trace, calls=(call, *FOUND.facts.trace.calls[1:]))
    assert "of 10,009 segments" in repr(trace)
    assert len(repr(replace(FOUND.facts, trace=trace))) < MOST
    assert len(repr(call)) < MOST


def test_a_model_shows_its_class_and_the_sizes_of_its_components() -> None:
    assert repr(FOUND.facts.model) == (
        "<Model small: SmallPipeline, 6.75 GiB of weights: "
        "text_encoder 2.00 GiB, transformer 4.50 GiB, vae 256 MiB>"
    )  # fmt: skip


def test_a_recommendation_shows_its_picks() -> None:
    first, *lines, last = repr(FOUND).splitlines()
    assert first == f"<Recommendation for small on a card: {len(FOUND.front)} plans"
    assert [line.split()[0] for line in lines] == list(planner.PREFERENCES)
    assert all(repr(plan) in line for line, (_, plan) in zip(lines, FOUND.picks, strict=True))
    assert last == ">"
    assert str(FOUND) == repr(FOUND)


def test_where_nothing_fits_the_nearest_plan_is_shown() -> None:
    found = small.found(vram=1)
    _, line, _ = repr(found).splitlines()
    assert line == f"  nearest   {found.nearest!r}"
    assert line.endswith(", does not fit>")
    assert repr(replace(found, front=())).endswith(": 0 plans\n>")


def test_a_plan_is_written_as_it_is_typed() -> None:
    plan = planner.draw(small.facts(), ())
    assert str(plan) == "everything on the GPU"
    assert repr(plan) == f"<Plan everything on the GPU: {plan.bill.totals}, does not fit>"
    assert repr(plan.run) == "<Run of small: everything on the device>"
