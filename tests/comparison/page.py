"""The readable page of a comparison: what it is, how often each contender fits, and how much longer it takes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from memplan.planner.judgement import NEGLIGIBLE
from tests.comparison.contenders import MEANINGS, QUALITY, SPEED
from tests.comparison.rows import Case, Row

ALIKE = 0.001
"""The share below which two predictions of seconds are the same."""

INTRO = """\
# memplan's picks beside what others choose: predicted

**Nothing on this page was measured.** Every figure is memplan's own prediction, of its plans and of the others' alike:
if the prediction is wrong, so is the page. It compares choices, not programs. Seconds are those of a datasheet and a
usual host, for one call of a warm pipeline, with the arguments of each model's published example.

- "fits": the predicted peaks are within the card's memory and the host's, while loading too.
- "x speed": its seconds by those of memplan's speed pick, where both fit; below 1 it is faster. The speed pick may
  quantize, so "loses less" counts where the contender is more exact, and "x quality" holds it against memplan's quality
  pick, which loses as little as can be.
- "refused": a technique does not run on the card or with the model, or the chart ends without a plan.

The contenders:
"""
HEAD = (
    "contender",
    "fits",
    "refused",
    "median x speed",
    "worst x speed",
    "median x quality",
    "loses less",
    "loses more",
)


def page(rows: Sequence[Row], part: str = "") -> str:
    """The whole file. `part` says what of the full comparison it is; "" for all of it."""
    return "\n".join([*_opening(rows, part), *_beaten(rows), *_tables(rows)]) + "\n"


def _opening(rows: Sequence[Row], part: str) -> Iterator[str]:
    models, cards, rams = ({getattr(row, name): None for row in rows} for name in ("model", "card", "ram"))
    yield INTRO
    yield from (f"- {name}: {meaning}." for name, meaning in MEANINGS.items())
    yield ""
    yield f"Models: {', '.join(models)}. Cards: {', '.join(cards)}. Host memory: {_gibs(rams)}."
    yield ""
    if part:
        yield f"**{part}**"
        yield ""
    yield f"It is written by `python -m tests.comparison --page`. State of the program: {', '.join(_programs(rows))}."
    yield ""


def _programs(rows: Iterable[Row]) -> list[str]:
    return sorted({row.program for row in rows})


def _gibs(rams: Iterable[float]) -> str:
    return ", ".join(f"{ram:g} GiB" for ram in rams)


# ---- tables ----------------------------------------------------------------------------------------------------------
def _tables(rows: Sequence[Row]) -> Iterator[str]:
    yield "## All machines"
    yield ""
    yield from table(rows)
    for card, ram in dict.fromkeys((row.card, row.ram) for row in rows):
        yield f"## {card}, {ram:g} GiB of host memory"
        yield ""
        yield from table([row for row in rows if (row.card, row.ram) == (card, ram)])


def table(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each contender, over the cases of `rows`."""
    picks = {row.case: row for row in rows if row.contender == SPEED}
    exact = {row.case: row for row in rows if row.contender == QUALITY}
    yield f"| {' | '.join(HEAD)} |"
    yield f"|{'---|' * len(HEAD)}"
    for name in dict.fromkeys(row.contender for row in rows):
        own = [row for row in rows if row.contender == name]
        yield f"| {' | '.join(_cells(name, own, picks, exact))} |"
    yield ""


def _cells(name: str, own: Sequence[Row], picks: Mapping[Case, Row], exact: Mapping[Case, Row]) -> list[str]:
    ratios = [(row.seconds / picks[row.case].seconds, row) for row in own if row.fits and picks[row.case].fits]
    precise = [row.seconds / exact[row.case].seconds for row in own if row.fits and exact[row.case].fits]
    worst = max(ratios, key=lambda pair: pair[0], default=None)
    said = f"{worst[0]:.2f} ({worst[1].model})" if worst and name != SPEED else "-"
    losses = [(_lost(row), _lost(picks[row.case])) for _, row in ratios]
    fits, refused = sum(row.fits for row in own), sum(bool(row.refused) for row in own)
    counts = [str(sum(a < b for a, b in losses)), str(sum(a > b for a, b in losses))]
    middle = f"{median(ratio for ratio, _ in ratios):.2f}" if ratios else "-"
    return [
        name,
        f"{fits} of {len(own)}",
        str(refused),
        middle,
        said,
        f"{median(precise):.2f}" if precise else "-",
        *counts,
    ]


def _lost(row: Row) -> tuple[float, int]:
    return row.error, row.tiles


# ---- where memplan is beaten -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Beaten:
    """A contender that fits, loses no more than memplan's speed pick and is faster; `why` excuses it, or is ""."""

    row: Row
    pick: Row
    why: str

    def __str__(self) -> str:
        """The case, both plans, and what explains it."""
        own, pick = self.row, self.pick
        where = f"{own.model}, {own.card}, {own.ram:g} GiB: {own.contender} (`{own.plan}`) takes {own.seconds:g} s"
        ours = f"memplan's `{pick.plan}` takes {pick.seconds:g} s" if pick.fits else "memplan finds no plan that fits"
        return f"{where}, {own.loss}; {ours}{', ' + pick.loss if pick.fits else ''}. {self.why or 'Not explained.'}"


def beaten(rows: Sequence[Row]) -> Iterator[Beaten]:
    """Every case of it."""
    picks = {row.case: row for row in rows if row.contender == SPEED}
    for row in rows:
        pick = picks[row.case]
        if row.fits and not pick.fits:
            yield Beaten(row, pick, "")
        elif row.fits and row.seconds < pick.seconds * (1 - ALIKE) and _no_more(row, pick):
            yield Beaten(row, pick, _why(row, pick))


def _no_more(row: Row, pick: Row) -> bool:
    return row.error <= pick.error and row.tiles <= pick.tiles


def _why(row: Row, pick: Row) -> str:
    if pick.spare and not row.spare:
        return "It leaves less than 2 % of a memory, and memplan picks such plans only where there are no others."
    within = pick.seconds <= row.seconds * (1 + NEGLIGIBLE)
    return f"The difference is within the {NEGLIGIBLE:.0%} that the search takes to be alike." if within else ""


def _beaten(rows: Sequence[Row]) -> Iterator[str]:
    found = list(beaten(rows))
    unexplained = [case for case in found if not case.why]
    yield "## Where a contender beats memplan"
    yield ""
    yield (
        "Cases in which a contender fits, loses no more than memplan's speed pick and is faster: "
        f"{len(found)}, of which {len(unexplained)} are not explained by the margins that the search keeps. "
        "Those would be errors of the search."
    )
    yield ""
    yield from (f"- {case}" for case in [*unexplained, *(case for case in found if case.why)])
    if found:
        yield ""
