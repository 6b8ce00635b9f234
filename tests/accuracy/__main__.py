"""Predicts every published row and prints how far off it is: `python -m tests.accuracy [--markdown] [ROW …]`.

`python -m tests.accuracy --page` writes all of both into tests/accuracy/*.md;
`python -m tests.accuracy seconds [ROW …]` predicts published latencies;
`python -m tests.accuracy cpu [FAMILY …]` holds dry runs against real runs on this CPU instead, `gpu` the bills of plans
against what the allocator of this CUDA device reports, `loading` the host memory of loads against real ones;
`python -m tests.accuracy benchmark --help` tells of full-size models under memory caps, beside other libraries.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Iterable


def main() -> None:
    """Read the command line and print."""
    if sys.argv[1:2] == ["benchmark"]:
        from tests.accuracy.benchmark import command

        command.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy", description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="print the table for a document")
    parser.add_argument("--page", action="store_true", help="write all rows into tests/accuracy/README.md")
    parser.add_argument(
        "rows", nargs="*", help='ids of single rows, "cpu" or "gpu" and families, or "loading"; all if none is given'
    )
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for line in write_page() if given.page else lines(given.rows, given.markdown):
        print(line, flush=True)


def lines(words: list[str], as_markdown: bool) -> Iterable[str]:
    """What to print for the words of the command line."""
    if words[:1] == ["cpu"]:
        from tests.accuracy import cpu

        return cpu.lines(words[1:], as_markdown)
    if words[:1] == ["seconds"]:
        from tests.accuracy import latency

        return latency.lines(words[1:])
    if words[:1] == ["gpu"]:
        from tests.accuracy import gpu

        return gpu.lines(words[1:])
    if words == ["loading"]:
        from tests.accuracy import loads

        return loads.lines()
    return published(words, as_markdown)


def write_page() -> list[str]:
    """Write the pages, and say where they are."""
    from tests.accuracy import latency
    from tests.accuracy.page import PAGE, page
    from tests.accuracy.published import Predictor

    predictor = Predictor()
    PAGE.write_text(page(predictor.results()), encoding="utf-8")
    latency.PAGE.write_text(latency.page(list(latency.all_timed(predictor))), encoding="utf-8")
    return [str(PAGE), str(latency.PAGE)]


def published(ids: list[str], as_markdown: bool) -> list[str]:
    """The table and summary of these rows."""
    from tests.accuracy.published import Predictor, rows
    from tests.accuracy.summary import markdown, summary, table

    chosen = [row for row in rows() if not ids or row.id in ids]
    if not chosen:
        raise SystemExit(f"published.csv has no row {', '.join(ids)}")
    results = list(Predictor().results(chosen))
    return [*(markdown(results) if as_markdown else table(results)), "", *summary(results)]


if __name__ == "__main__":
    main()
