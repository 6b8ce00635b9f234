"""Show which models run on which cards: with which pick, how fast, in how much memory.

Cases are priced in several processes. A case takes seconds to minutes, and the first one of a
model its dry run besides. With --csv each row is written as soon as it is there: a run that is cut
short goes on where it was, and rows that another version has priced are made anew. An argument of
the call goes to the models that take it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from memplan.errors import BadInput
from memplan.faces.cli import files, options
from memplan.faces.cli.terminal import Progress, say_which
from memplan.planner import PREFERENCES

if TYPE_CHECKING:
    from memplan.faces.matrix.case import Row
    from memplan.faces.matrix.pricing import Matrix


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be typed."""
    models = "bundled names, folders, files or Hub ids, as memplan recommend takes them"
    parser.add_argument("--models", nargs="+", required=True, metavar="MODEL", help=models)
    parser.add_argument("--gpus", nargs="+", required=True, metavar="NAME", help='cards, e.g. "RTX 4070" "RTX 4090"')
    parser.add_argument("--ram", nargs="+", required=True, type=float, metavar="GIB", help="host memory; one or more")
    options.add_limits(parser.add_argument_group("machine", "Of every machine. Sizes are GiB."))
    options.add_call(parser)
    parser.add_argument("--prefer", choices=PREFERENCES, default="balanced", help="which pick is shown")
    options.add_dtype(parser)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="keep the rows in this file, and go on from it")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page, too")
    parser.add_argument("--all", action="store_true", help="show every plan, however many there are")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="how many price at once; as many as there is room for"
    )


def run(args: argparse.Namespace) -> int:
    """Price what is missing, and print."""
    from memplan.faces.matrix.asking import cases
    from memplan.faces.matrix.case import Case
    from memplan.faces.matrix.pricing import Matrix
    from memplan.faces.report.html.matrix import page
    from memplan.faces.report.matrix import matrix

    for file in filter(None, (args.csv, args.html)):
        files.writable(file)
    for model in args.models:
        say_which(model)
    said = {"prefer": args.prefer, "dtype": args.dtype or "", "variant": args.variant}
    asked = Case("", "", 0.0, **said, reserve=args.reserve, limit=args.limit)
    found = Matrix(cases(args.models, args.gpus, args.ram, options.call(args), asked), args.csv)
    _price(found, args)
    print(matrix(found.rows, everything=args.all))
    if args.html:
        files.write(args.html, page(found.rows).encode())
    return _code(found.rows)


def _price(found: "Matrix", args: argparse.Namespace) -> None:
    """Prices what is missing, and says how far it is."""
    from memplan.faces.matrix.workers import usual

    every, start = len(found.missing), perf_counter()
    if args.processes is not None and args.processes < 1:
        raise BadInput(f"--processes is {args.processes}: give 1 or more")
    if found.rows:
        _tell(found, args.csv)
    processes = min(args.processes or usual(), max(every, 1))
    try:
        with Progress() as progress:
            progress(f"pricing {every} {'case' if every == 1 else 'cases'}, {processes} at once")
            for number, row in enumerate(found.price(processes), 1):
                progress(f"{number} of {every} cases, {perf_counter() - start:.0f} s: {row.case}")
    except KeyboardInterrupt:
        if args.csv and found.rows:
            _tell(found, args.csv, "; the same command goes on from there")
        raise


def _tell(found: "Matrix", file: Path, more: str = "") -> None:
    print(f"memplan: {len(found.rows)} of {len(found.cases)} cases are in {file}{more}", file=sys.stderr)


def _code(rows: "Sequence[Row]") -> int:
    """0 where something fits, 3 where nothing does, 2 where every call was refused."""
    from memplan.faces.matrix.case import FITS, NOTHING_FITS

    verdicts = {row.verdict for row in rows}
    return 0 if FITS in verdicts else 3 if NOTHING_FITS in verdicts else 2
