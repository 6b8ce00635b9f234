"""What a REPL shows of the large values: what one wants to know of them, and not all that they hold."""

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from memplan import planner
from memplan.facts import Segment
from memplan.facts.units import gib
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


# ---- in notebooks ----------------------------------------------------------------------------------------------------
class Cells(HTMLParser):
    """The rows of a table, and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.rows += [[]] if tag == "tr" else []
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1][-1] += data


@pytest.mark.parametrize("value", [FOUND, PICK, FOUND.facts.model, FOUND.facts.machine], ids=lambda v: type(v).__name__)
def test_a_notebook_shows_a_table_without_scripts(value: Any) -> None:
    cells = Cells(value._repr_html_())
    assert {"table", "caption", "tr", "th", "td"} >= cells.tags - {"thead", "tbody"}
    assert len({len(row) for row in cells.rows}) == 1


def test_a_notebook_shows_the_picks_and_the_phases() -> None:
    rows = Cells(FOUND._repr_html_()).rows
    assert [row[:2] for row in rows[1:]] == [[name, str(plan)] for name, plan in FOUND.picks]
    phases = Cells(PICK._repr_html_()).rows[1:]
    assert [row[0] for row in phases] == [peak.phase for peak in PICK.bill.phases]
    assert [row[5] for row in phases] == [gib(peak.memory.required) for peak in PICK.bill.phases]


def test_a_notebook_shows_names_as_text() -> None:
    model = replace(FOUND.facts.model, name="<b>&")
    assert "<b>" not in model._repr_html_()
    assert "&lt;b&gt;&amp;: SmallPipeline" in model._repr_html_()


def test_a_notebook_without_a_gpu() -> None:
    assert "no GPU" in replace(FOUND.facts.machine, gpu=None)._repr_html_()
