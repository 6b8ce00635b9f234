"""Show the bill of a plan that you name."""

import argparse

from memplan.faces import api
from memplan.faces.cli import options
from memplan.faces.cli.terminal import Progress, say_which


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be typed."""
    options.add_model(parser)
    parser.add_argument(
        "--with",
        dest="strategies",
        action="append",
        default=[],
        metavar="PLAN",
        help="a plan as memplan writes it, NAME:COMPONENT,…,SETTING=VALUE,… with + between several; or again for each. "
        "None: everything on the GPU",
    )
    options.add_call(parser)
    options.add_training(parser)
    options.add_machine(parser)
    options.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Price and print."""
    from memplan.faces.report import bill, json

    call = options.call(args)
    train = options.training(args, call)
    say_which(args.model)
    with Progress() as progress:
        plan = api.price(args.model, args.strategies, progress=progress, train=train, **options.reading(args), **call)
    print(json.bill(plan) if args.json else bill.bill(plan))
    return 0 if plan.fits else 3
