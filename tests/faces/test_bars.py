"""Bars of the terminal: as long as what they stand for, no wider than the terminal, and plain where they should be."""

import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from memplan.faces.cli import terminal
from memplan.faces.report.bars import COLOURS, PLAIN, Ink, bars
from memplan.faces.report.layout import WIDTH
from memplan.facts.units import amount
from memplan.planner import Plan, draw
from tests.faces import small

NOTHING = draw(small.facts(), ())


@pytest.fixture(params=[60, 100, 120])
def width(request: pytest.FixtureRequest) -> Iterator[int]:
    before = WIDTH.set(request.param)
    yield request.param
    WIDTH.reset(before)


def rows(plan: Plan, ink: Ink) -> list[str]:
    """The bars without the line above and the key below."""
    return bars(plan, ink)[1:-1]


@pytest.mark.parametrize("ink", [Ink(), PLAIN])
def test_bars_are_as_long_as_what_they_stand_for(width: int, ink: Ink) -> None:
    phases = [peak for peak in NOTHING.bill.phases if peak.component or peak.phase == "loading"]
    shown = rows(NOTHING, ink)
    assert len(shown) == len(phases)
    assert max(map(len, bars(NOTHING, ink)[1:-1])) <= width
    lengths = [sum(row.count(mark) for mark in ink.marks) for row in shown]
    scale = lengths[-1] / phases[-1].memory.required
    for peak, row, length in zip(phases, shown, lengths, strict=True):
        assert length == pytest.approx(peak.memory.required * scale, abs=1.01)
        assert row.count(ink.marks[2]) == pytest.approx(peak.activations * scale, abs=1.01)
        assert row.endswith(amount(peak.memory.required))


def test_the_limit_stands_where_it_is_and_nothing_covers_it() -> None:
    (decoding,) = (row for row in rows(NOTHING, Ink()) if "decoding" in row)
    assert NOTHING.bill.peak.phase == "decoding"
    assert "│" not in decoding
    others = [row for row in rows(NOTHING, Ink()) if "decoding" not in row]
    assert len({row.index("│") for row in others}) == 1


def test_colours_change_nothing_but_the_colours() -> None:
    coloured = bars(NOTHING, Ink(colours=COLOURS))
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in coloured] == bars(NOTHING, Ink())
    assert coloured != bars(NOTHING, Ink())


# ---- where they are drawn, and how -----------------------------------------------------------------------------------
@pytest.fixture
def stdout(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the answer go to a terminal or a pipe."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)

    def goes(*, terminal_there: bool, encoding: str = "utf-8") -> None:
        out = SimpleNamespace(isatty=lambda: terminal_there, encoding=encoding)
        monkeypatch.setattr(terminal, "sys", SimpleNamespace(stdout=out))

    return goes


def test_a_terminal_has_them_in_colours(stdout: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    stdout(terminal_there=True)
    assert terminal.ink(asked=False) == Ink(colours=COLOURS)
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.ink(asked=False) == Ink()
    monkeypatch.setenv("NO_COLOR", "")
    assert terminal.ink(asked=False) == Ink(colours=COLOURS)
    monkeypatch.setenv("TERM", "dumb")
    assert terminal.ink(asked=False) == Ink()


def test_a_pipe_has_them_only_if_asked_and_plain(stdout: Callable[..., None]) -> None:
    stdout(terminal_there=False)
    assert terminal.ink(asked=False) is None
    assert terminal.ink(asked=True) == Ink()


def test_without_unicode_there_are_other_characters(stdout: Callable[..., None]) -> None:
    stdout(terminal_there=False, encoding="cp1252")
    assert terminal.ink(asked=True) == PLAIN
