"""The published rows as a table, and how good the predictions are in short."""

from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from statistics import median

from tests.accuracy.published import METRICS, Result

LARGE = 0.04
"""An error above this needs an explanation."""
HEAD = ("row", "model and plan", "metric", "measured", "predicted", "error")


def cells(result: Result) -> tuple[str, ...]:
    """One line of the table; an error above 4 % points at its explanation, and a star at an emulated era."""
    row = result.row
    what = " + ".join((row.model, *row.setup.split(), *row.plan.split()))
    what += f" ({row.scope})" if row.scope != "pipeline" else ""
    figures = (f"{row.measured:.3f}", f"{result.predicted:.3f}{'*' if row.era else ''}", f"{result.error:+.2%}")
    return (row.id, what, f"{row.metric}, {row.quality}", *figures)


def table(results: Iterable[Result]) -> Iterator[str]:
    """The lines of a plain table, the explanation of a large error below its row."""
    lines = [HEAD, *(cells(result) for result in results)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    for result, line in zip((None, *results), lines, strict=True):
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        if result is not None and abs(result.error) > LARGE:
            yield f"    {result.row.why or 'not explained'}"
        if result is not None and result.row.era:
            yield f"    * {era_note(result)}"


def era_note(result: Result) -> str:
    """What the installed library's code would take where an older one was measured."""
    return f"with {result.row.era.replace('_', ' ')}; {result.today:.3f} GiB by the installed library"


def markdown(results: Sequence[Result]) -> Iterator[str]:
    """The same table for a document."""
    yield f"| {' | '.join(HEAD)} |"
    yield f"|{'---|' * len(HEAD)}"
    for result in results:
        yield f"| {' | '.join(cells(result))} |"
    yield ""
    for result in results:
        if result.row.era:
            yield f"- {result.row.id}*: {era_note(result)}."
        if abs(result.error) > LARGE:
            yield f"- {result.row.id}: {result.row.why or 'not explained'}."


def summary(results: Sequence[Result]) -> Iterator[str]:
    """One line for each quality and metric."""
    for metric in METRICS:
        for quality in "ABC":
            chosen = [r for r in results if (r.row.metric, r.row.quality) == (metric, quality)]
            if chosen:
                yield f"quality {quality}, {metric}: {statistics(chosen)}"


def statistics(results: Sequence[Result]) -> str:
    """Number, median, 90th percentile and worst."""
    worst = max(results, key=lambda r: abs(r.error))
    middle, most = median(abs(r.error) for r in results), percentile(results, 0.9)
    return f"n {len(results)}, median {middle:.2%}, 90 % within {most:.2%}, worst {worst.error:+.2%} ({worst.row.id})"


def percentile(results: Sequence[Result], share: float) -> float:
    """The smallest |error| that `share` of the results do not exceed."""
    errors = sorted(abs(r.error) for r in results)
    return errors[ceil(share * len(errors)) - 1]
