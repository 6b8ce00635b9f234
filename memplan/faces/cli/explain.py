"""Say what a strategy does, when it helps and what it costs."""

import argparse

from memplan.errors import BadInput, did_you_mean
from memplan.registry import strategies


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be typed."""
    parser.add_argument("strategy", metavar="STRATEGY", nargs="?", help="its name; without one, all are listed")


def run(args: argparse.Namespace) -> int:
    """Look it up and print."""
    from memplan.faces.report import help

    known = {cls.name: cls for cls in strategies()}
    if args.strategy is None:
        print(help.listing(known.values()))
        return 0
    if args.strategy not in known:
        meant = did_you_mean(args.strategy, known)
        raise BadInput(f"memplan has no strategy {args.strategy!r}.{meant} It has: {', '.join(known)}")
    print(help.page(known[args.strategy]))
    return 0
