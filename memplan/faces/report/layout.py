"""Columns and paragraphs no wider than a terminal."""

import re
from collections.abc import Iterator, Sequence
from textwrap import wrap

WIDTH, INDENT = 100, 2
NARROWEST = 20
"""The least columns of a paragraph."""
TITLE = 11
"""Columns that a title takes."""


def columns(align: str, rows: Sequence[Sequence[str]], below: Sequence[Sequence[str]] = ()) -> list[str]:
    """Rows under one another, the last column wrapped; `align` has "l" or "r" for each column.

    `below` are lines to put under each of the last rows.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
    start = INDENT + sum(widths[:-1]) + 2 * len(widths[:-1])
    notes = [*[()] * (len(rows) - len(below)), *below]
    lines: list[str] = []
    for row, note in zip(rows, notes, strict=True):
        cells = [cell.ljust(w) if a == "l" else cell.rjust(w) for cell, w, a in zip(row, widths, align, strict=True)]
        last = _wrapped(row[-1], WIDTH - start) if align[-1] == "l" else [cells[-1]]
        lines.append(" " * INDENT + "  ".join([*cells[:-1], last[0]]).rstrip())
        lines += [*(" " * start + more for more in last[1:]), *note]
    return lines


def paragraph(text: str, indent: int = 0, hanging: int | None = None) -> list[str]:
    """`text` in lines; those after the first are indented by `hanging`."""
    more = indent if hanging is None else hanging
    lines = _wrapped(text, WIDTH - max(indent, more))
    return [" " * (indent if i == 0 else more) + line for i, line in enumerate(lines)]


def titled(title: str, lines: Sequence[str]) -> list[str]:
    """Paragraphs beside a title."""
    body = [line for text in lines for line in _wrapped(text, WIDTH - TITLE)]
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
