"""A matrix as text: models by cards, each with time, device memory and loss; then the plans, and why there is none."""

from collections.abc import Iterator, Mapping, Sequence

from memplan.faces.matrix.case import FITS, Row
from memplan.faces.report.layout import INDENT, WIDTH, paragraph
from memplan.facts.units import UNITS, duration

MEANING = (
    "Predicted, for each model with the preferred pick: the time of one call of a warm pipeline, by the card's "
    f"datasheet and a usual host; the device memory (VRAM) that the card must have; the loss of precision. {UNITS}."
)
TYPED = 'memplan price MODEL --gpu NAME --ram GIB --with "PLAN" shows the bill of a plan, phase by phase.'
VENDORS = ("NVIDIA ", "GeForce ", "AMD ", "Radeon ", "Intel ")
"""Words of a card's name that tell no two of them apart."""
GAP = 2
PLANS = 12
"""How many plans are written out, unless all are asked for."""


def matrix(rows: Sequence[Row], *, everything: bool = False) -> str:
    """A grid for each host memory, as wide as there is room for; below it plans, all of them with `everything`."""
    grids = [
        _titled(own) for ram in dict.fromkeys(row.ram for row in rows) if (own := [r for r in rows if r.ram == ram])
    ]
    parts = [*grids, _plans(rows, None if everything else PLANS), _reasons(rows)]
    parts.append([*paragraph(MEANING), *paragraph(TYPED)])
    return "\n\n".join("\n".join(part) for part in parts if part)


def short(card: str) -> str:
    """The name of a card as people say it: "RTX 4070"."""
    for word in VENDORS:
        card = card.removeprefix(word)
    return card


def asked(row: Row) -> str:
    """What is asked of a pick beside the model and the machine."""
    settings = (("call", row.call.strip("{}")), ("dtype", row.dtype), ("variant", row.variant), ("limit", row.limit))
    kept = [f"{name} {value}" for name, value in settings if value]
    return ", ".join([f"{row.prefer} picks", *kept, *([f"{row.reserve:g} GiB kept free"] if row.reserve else [])])


# ---- the grid --------------------------------------------------------------------------------------------------------
def _titled(rows: Sequence[Row]) -> list[str]:
    """The grid of one host memory, in blocks of as many cards as a line has room for."""
    several = len({asked(row) for row in rows}) > 1
    of = f", {rows[0].prefer} picks" if several else f", {asked(rows[0])}"
    models, cards = ([*dict.fromkeys(getattr(row, name) for row in rows)] for name in ("model", "gpu"))
    found = {(row.model, row.gpu): cell(row) for row in rows}
    lines = paragraph(f"{rows[0].ram:g} GiB of host memory{of}", 0, INDENT)
    for shown in _blocks(models, cards, found):
        lines += ["", *_block(models, shown, found)]
    return lines


Cells = Mapping[tuple[str, str], tuple[str, ...]]


def cell(row: Row) -> tuple[str, ...]:
    """What stands in one cell, in lines."""
    if row.verdict != FITS or row.seconds is None or row.vram_gib is None:
        return (row.verdict,)
    return duration(row.seconds), f"{row.vram_gib:,.2f} GiB", row.loss


def _blocks(models: Sequence[str], cards: Sequence[str], found: Cells) -> Iterator[list[str]]:
    """The cards in stretches that fit side by side, at least one in each."""
    room = WIDTH.get() - INDENT - max(map(len, models))
    block: list[str] = []
    for card in cards:
        if block and sum(_width(c, found) + GAP for c in [*block, card]) > room:
            yield block
            block = []
        block.append(card)
    yield block


def _width(card: str, found: Cells) -> int:
    return max(len(text) for text in (short(card), *(t for (_, c), cells in found.items() if c == card for t in cells)))


def _block(models: Sequence[str], cards: Sequence[str], found: Cells) -> Iterator[str]:
    first = max(map(len, models))
    widths = [_width(card, found) for card in cards]
    yield _line("", first, map(short, cards), widths)
    for model in models:
        cells = [found.get((model, card), ("",)) for card in cards]
        for i in range(max(map(len, cells))):
            texts = (lines[i] if i < len(lines) else "" for lines in cells)
            yield _line(model if i == 0 else "", first, texts, widths)


def _line(head: str, first: int, texts: Iterator[str], widths: Sequence[int]) -> str:
    cells = (text.rjust(width) for text, width in zip(texts, widths, strict=True))
    return (" " * INDENT + (" " * GAP).join([head.ljust(first), *cells])).rstrip()


# ---- below it --------------------------------------------------------------------------------------------------------
def _plans(rows: Sequence[Row], limit: int | None) -> list[str]:
    """The plan of each case that has one."""
    own = [row for row in rows if row.plan]
    if not own:
        return []
    if limit is not None and len(own) > limit:
        return paragraph(f"--all shows the plans of all {len(own):,} cases; --csv and --html hold them, too")
    lines = ["Plans"]
    for row in own:
        lines += [*paragraph(_place(row, rows), INDENT), *paragraph(row.plan, 2 * INDENT, 3 * INDENT)]
    return lines


def _reasons(rows: Sequence[Row]) -> list[str]:
    """Why a case has no plan."""
    own = [row for row in rows if row.why]
    lines = ["Without a plan"] if own else []
    for row in own:
        lines += paragraph(f"{_place(row, rows)}: {row.verdict}. {row.why}", INDENT, 2 * INDENT)
    return lines


def _place(row: Row, rows: Sequence[Row]) -> str:
    """The case in words; its host memory only where there are several."""
    several = len({other.ram for other in rows}) > 1
    return f"{row.model} on {short(row.gpu)}{f', {row.ram:g} GiB' if several else ''}"
