"""Columns and paragraphs no wider than the terminal."""

import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from itertools import zip_longest
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
LEAST = 8
"""The least characters of a column of words that is broken."""
TITLE = 11
"""Columns that a title takes."""


def columns(
    align: str, rows: Sequence[Sequence[str]], below: Sequence[Sequence[str]] = (), spare: Sequence[int] = ()
) -> list[str]:
    """Rows under one another, the last column wrapped; `align` has "l" or "r" for each column.

    `below` are lines to put under each of the last rows. Where there is no room columns move together, then those that
    `spare` numbers go, the first of them first, and then words are broken.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
    shown, gap = _fitting(widths, align[-1] == "l", spare)
    widths = _narrowed(widths, align, shown, gap)
    start = INDENT + sum(widths[i] + gap for i in shown[:-1])
    notes = [*[()] * (len(rows) - len(below)), *below]
    lines: list[str] = []
    for row, note in zip(rows, notes, strict=True):
        cells = [_broken(row[i], widths[i]) for i in shown]
        if align[-1] == "l":
            cells[-1] = _wrapped(row[-1], WIDTH.get() - start)
        for parts in zip_longest(*cells, fillvalue=""):
            placed = (
                f"{part:{'<' if align[i] == 'l' else '>'}{widths[i]}}" for i, part in zip(shown, parts, strict=True)
            )
            lines.append((" " * INDENT + (" " * gap).join(placed)).rstrip())
        lines += note
    return lines


def _fitting(widths: Sequence[int], wraps: bool, spare: Sequence[int]) -> tuple[list[int], int]:
    """The columns that there is room for, by number, and the spaces between them."""
    least = _least(widths, wraps)
    choices = ([i for i in range(len(widths)) if i not in spare[:gone]] for gone in range(len(spare) + 1))
    ways = [(shown, gap) for shown in choices for gap in GAPS]
    return next((way for way in ways if INDENT + _total(least, *way) <= WIDTH.get()), ways[-1])


def _least(widths: Sequence[int], wraps: bool) -> list[int]:
    return [*widths[:-1], min(widths[-1], NARROWEST) if wraps else widths[-1]]


def _narrowed(widths: Sequence[int], align: str, shown: Sequence[int], gap: int) -> list[int]:
    """The widths with which they fit: the widest columns of words lose what is too much, as far as that goes."""
    found, words = [*widths], [i for i in shown[:-1] if align[i] == "l"]
    while words and INDENT + _total(_least(found, align[-1] == "l"), shown, gap) > WIDTH.get():
        widest = max(words, key=lambda i: found[i])
        if found[widest] <= LEAST:
            break
        found[widest] -= 1
    return found


def _broken(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width`, which end behind spaces, hyphens and underscores where they can."""
    lines = [""]
    for atom in re.findall(r"[^\s_-]*[\s_-]|[^\s_-]+", text):
        if lines[-1] and len(lines[-1] + atom.rstrip()) > width:
            lines.append("")
        lines[-1] += atom
    return [line[at : at + width].rstrip() for line in lines for at in range(0, max(len(line.rstrip()), 1), width or 1)]


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
    """`word` in pieces that end behind a comma, or a slash where it is no path, as long as fit."""
    piece, ends = "", "," if word.startswith("/") else ",/"
    for atom in re.findall(rf"[^{ends}]*[{ends}]|[^{ends}]+", word):
        if piece and len(piece + atom) > width:
            yield piece
            piece = ""
        piece += atom
    yield piece
