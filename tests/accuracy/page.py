"""Writes tests/accuracy/README.md: every row by technique, the worst case, and what is left out."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from tests.accuracy.published import HERE, SCOPES, Result, Row
from tests.accuracy.summary import markdown, statistics, summary

PAGE = HERE / "README.md"
OTHER = "another model"
DIGITS = 3
"""Decimals of a GiB that are printed and that errors are computed from, so that the page follows from its figures."""

INTRO = """\
# Predictions beside published figures

Peaks of memory that others measured on GPUs, in GiB, and what memplan predicts for the same call. It is written by
`python -m tests.accuracy --page`; a test holds it to `published.csv` and `excluded.csv`.

- Quality is the collection's: A where the call and what was read are known, named by the source or, as the figure's
  words then say, taken as probable; B where one of them is open; C is prose, rounded or incomplete.
- "allocated" and "reserved" are PyTorch's two statistics. "unspecified": the source does not say what it read, and the
  allocated peak is predicted. No constant was chosen for such a row.
- LTX-Video 0.9.7's configs are not bundled: its rows rest on a guess at them that has the published size.
- Quantized weights: T5's `wo` is kept as transformers 4 kept it, in float32 by bitsandbytes ("float32_wo") and as it is
  by torchao ("spare=wo"). For quanto's rows of FLUX.1 that it was in float32 too is read off what loading left
  (S1-12-load), not off a source. Peaks of reserved memory are predicted for weights that are moved one after the other.
- quanto's rows of PixArt and SD3 hardly change with the batch: they are taken to be what a call leaves ("left").
- A figure with a star is predicted with the library code of its date; below the table is that of the installed library.
- What was measured, where it is less or more than a call of the pipeline:"""

REPRODUCE = """\
## How to reproduce

```bash
python -m tests.accuracy                 # all rows, a dry run for each call: minutes on two cores, no GPU, no weights
python -m tests.accuracy S6-fx23-peak    # single rows
python -m tests.accuracy --page          # all rows, into this file
```

`published.csv` has the source of each row, word for word what was measured, and what is predicted for it. `setups.py`
holds the pipelines that differ from the bundled ones, `eras.py` the library code of an older date."""


def page(results: Iterable[Result]) -> str:
    """The whole file for these results."""
    shown = [as_printed(result) for result in results]
    parts = (opening(), ["## In short", ""], in_short(shown), ["", REPRODUCE, "", "## By technique", ""])
    rest = (overview(shown), sections(shown), left_out())
    return "\n".join(chain(*parts, *rest)) + "\n"


def as_printed(result: Result) -> Result:
    """The result with its figures as the page prints them."""
    return replace(result, predicted=round(result.predicted, DIGITS), today=round(result.today, DIGITS))


def opening() -> Iterator[str]:
    """What the figures are."""
    yield INTRO
    yield from (f"  - ({scope}): {meaning}." for scope, meaning in SCOPES.items() if scope != "pipeline")
    yield ""


def in_short(results: Sequence[Result]) -> Iterator[str]:
    """Errors by quality and metric, and the worst of the rows whose metric is known."""
    yield from (f"- {line}" for line in summary(results))
    known = [result for result in results if result.row.metric != "unspecified"]
    worst = max(known, key=lambda result: abs(result.error))
    yield f"- the worst of known metric: {worst.row.id}, {worst.error:+.2%}: {worst.row.why or 'not explained'}"


# ---- by technique ----------------------------------------------------------------------------------------------------
def technique(row: Row) -> str:
    """The strategies of a row's plan, without components and settings."""
    return " + ".join(sorted({part.partition(":")[0] for part in row.plan.split()})) or "everything on the GPU"


def by_technique(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results by technique, those without any first."""
    found: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: (bool(result.row.plan), technique(result.row))):
        found.setdefault(technique(result.row), []).append(result)
    return found


def overview(results: Sequence[Result]) -> Iterator[str]:
    """One line for each technique: rows of known metric, and of any."""
    yield "| technique | rows | of known metric | any metric |"
    yield "|---|---|---|---|"
    for name, found in by_technique(results).items():
        known = [result for result in found if result.row.metric != "unspecified"]
        yield f"| {name} | {len(found)} | {statistics(known) if known else 'none'} | {statistics(found)} |"
    yield ""


def sections(results: Sequence[Result]) -> Iterator[str]:
    """The table of each technique."""
    for name, found in by_technique(results).items():
        yield f"### {name}\n"
        yield "\n".join(markdown(found)).rstrip()
        yield ""


# ---- what is not predicted -------------------------------------------------------------------------------------------
def left_out() -> Iterator[str]:
    """How many rows of the collection are excluded for which reason."""
    reasons = excluded()
    yield f"## What is left out: {reasons.total()} rows"
    yield ""
    yield "| rows | reason |"
    yield "|---|---|"
    yield from (f"| {count} | {reason} |" for reason, count in reasons.most_common())
    yield ""
    yield "`excluded.csv` names each."


def excluded() -> Counter[str]:
    """The reasons of excluded.csv, counted; other models are counted together."""
    with (HERE / "excluded.csv").open(newline="") as file:
        reasons = [row["reason"] for row in csv.DictReader(file)]
    return Counter(OTHER if reason.startswith(OTHER) else reason for reason in reasons)
