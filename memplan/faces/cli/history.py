"""Show what measured runs took beside what was predicted for them.

Runs are kept by memplan verify, by memplan run --record, and inside memplan.guard(record=True), on
this machine alone. Where a GPU took more memory than predicted, later plans for pipelines of that
class keep as much free.
"""

import argparse

from memplan.faces.cli.options import add_json


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be typed."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model", default="", metavar="NAME", help="runs of this model, or of pipelines of this class")
    what.add_argument("--forget", action="store_true", help="remove all that is kept")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print, or forget."""
    from memplan.faces.history import database
    from memplan.faces.report import history

    if args.forget:
        print((history.forgotten_as_json if args.json else history.forgotten)(database.forget()))
        return 0
    runs = database.load(args.model)
    if args.model and not (runs or args.json):
        print(history.none_of(args.model, database.load(), database.file()))
        return 0
    print((history.as_json if args.json else history.history)(runs, database.file()))
    return 0
