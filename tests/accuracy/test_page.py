import csv
import re

import pytest

from tests.accuracy.page import DIGITS, PAGE, by_technique, excluded, page, technique
from tests.accuracy.published import HERE, Result, rows

REFILL = "run `python -m tests.accuracy --page` and read what changed"
ROW = re.compile(r"^\| (S\S+) \|.*\| ([\d.]+)\*? \| [-+][\d.]+% \|$", re.MULTILINE)
TODAY = re.compile(r"^- (S\S+)\*: .*; ([\d.]+) GiB by the installed library\.$", re.MULTILINE)


def printed(text: str) -> list[Result]:
    """The results whose figures the page shows, in the order of published.csv."""
    predicted, today = dict(ROW.findall(text)), dict(TODAY.findall(text))
    return [
        Result(row, float(predicted[row.id]), float((today if row.id in today else predicted)[row.id]))
        for row in rows()
        if row.id in predicted
    ]


@pytest.fixture(scope="module")
def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_shows_each_published_row_once(text: str) -> None:
    assert sorted(row for row, _ in ROW.findall(text)) == sorted(row.id for row in rows()), REFILL


def test_all_but_the_predictions_follows_from_the_tables(text: str) -> None:
    assert page(printed(text)) == text, REFILL


def test_another_prediction_makes_another_page(text: str) -> None:
    first, *rest = printed(text)
    assert page([Result(first.row, first.predicted * 2, first.today), *rest]) != text


def test_each_row_is_in_the_section_of_its_technique() -> None:
    found = by_technique([Result(row, 1.0, 1.0) for row in rows()])
    assert next(iter(found)) == "everything on the GPU"
    assert {technique(result.row) for results in found.values() for result in results} == set(found)
    assert "group_offload + layerwise_casting" in found
    assert sum(map(len, found.values())) == len(rows())


def test_each_excluded_row_is_counted() -> None:
    with (HERE / "excluded.csv").open(newline="") as file:
        assert excluded().total() == len(list(csv.DictReader(file)))
    assert excluded()["another model"] > 1


def test_figures_are_printed_with_the_decimals_that_errors_are_computed_from(text: str) -> None:
    assert all(len(figure.partition(".")[2]) == DIGITS for _, figure in ROW.findall(text))
