"""Columns and paragraphs no wider than the terminal."""

import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from textwrap import wrap

WIDTH: ContextVar[int] = ContextVar("memplan_width", default=100)
"""Characters of a line."""
ENDLESS = 1 << 20
"""Characters of a line that no text reaches, for where lines are broken by others: a browser, or nobody."""
INDENT = 2
GAPS = (2, 1)
"""Spaces between columns, and where there is no room for them."""
NARROWEST = 20
"""The least characters of a line of a paragraph."""
TITLE = 11
"""Columns that a title takes."""


def columns(
    align: str, rows: Sequence[Sequence[str]], below: Sequence[Sequence[str]] = (), spare: Sequence[int] = ()
) -> list[str]:
    """Rows under one another, the last column wrapped; `align` has "l" or "r" for each column.

    `below` are lines to put under each of the last rows. Where there is no room columns move together, and then those
    that `spare` numbers go, the first of them first.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
    shown, gap = _fitting(widths, align[-1] == "l", spare)
    start = INDENT + sum(widths[i] + gap for i in shown[:-1])
    notes = [*[()] * (len(rows) - len(below)), *below]
    lines: list[str] = []
    for row, note in zip(rows, notes, strict=True):
        cells = [row[i].ljust(widths[i]) if align[i] == "l" else row[i].rjust(widths[i]) for i in shown]
        last = _wrapped(row[-1], WIDTH.get() - start) if align[-1] == "l" else [cells[-1]]
        lines.append(" " * INDENT + (" " * gap).join([*cells[:-1], last[0]]).rstrip())
        lines += [*(" " * start + more for more in last[1:]), *note]
    return lines


def _fitting(widths: Sequence[int], wraps: bool, spare: Sequence[int]) -> tuple[list[int], int]:
    """The columns that there is room for, by number, and the spaces between them."""
    least = [*widths[:-1], min(widths[-1], NARROWEST) if wraps else widths[-1]]
    choices = ([i for i in range(len(widths)) if i not in spare[:gone]] for gone in range(len(spare) + 1))
    ways = [(shown, gap) for shown in choices for gap in GAPS]
    return next((way for way in ways if INDENT + _total(least, *way) <= WIDTH.get()), ways[-1])


def _total(widths: Sequence[int], shown: Sequence[int], gap: int) -> int:
    return sum(widths[i] for i in shown) + gap * (len(shown) - 1)


def paragraph(text: str, indent: int = 0, hanging: int | None = None) -> list[str]:
    """`text` in lines; those after the first are indented by `hanging`."""
    more = indent if hanging is None else hanging
    lines = _wrapped(text, WIDTH.get() - max(indent, more))
    return [" " * (indent if i == 0 else more) + line for i, line in enumerate(lines)]


def titled(title: str, lines: Sequence[str]) -> list[str]:
    """Paragraphs beside a title."""
    body = [line for text in lines for line in _wrapped(text, WIDTH.get() - TITLE)]
    return [f"{title if i == 0 else '':<{TITLE}}{line}".rstrip() for i, line in enumerate(body)]


def _wrapped(text: str, width: int) -> list[str]:
    """Lines that end between words; within a word only behind a comma, so that names stay whole."""
    room = max(width, NARROWEST)
    split = re.sub(rf"\S{{{room + 1},}}", lambda word: " ".join(_pieces(word[0], room)), text)
    parts = (wrap(part, room, break_on_hyphens=False, break_long_words=False) for part in split.split("\n"))
    return [line for part in parts for line in part] or [""]


def _pieces(word: str, width: int) -> Iterator[str]:
    """`word` in pieces that end behind a comma, as long as fit."""
    piece = ""
    for atom in re.findall(r"[^,]*,|[^,]+", word):
        if piece and len(piece + atom) > width:
            yield piece
            piece = ""
        piece += atom
    yield piece
