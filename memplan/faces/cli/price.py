"""Show the bill of a plan that you name."""

import argparse
from typing import Any

from memplan.faces import api
from memplan.faces.cli import files, options
from memplan.faces.cli.terminal import Progress, ink, say_which


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
    options.add_gradients(parser)
    options.add_machine(parser)
    options.add_bars(parser)
    options.add_pictures(parser)
    options.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Price and print."""
    from memplan.faces.report import bars, bill, json
    from memplan.faces.report.html.page import page_of

    call = options.call(args)
    purpose: dict[str, Any] = {"train": options.training(args, call), "differentiable": options.differentiable(args)}
    files.check(args)
    say_which(args.model)
    with Progress() as progress:
        plan = api.price(args.model, args.strategies, progress=progress, **purpose, **options.reading(args), **call)
    drawing = None if args.json else ink(asked=args.bars)
    print(json.bill(plan) if args.json else bill.bill(plan))
    if drawing:
        print("", *bars.bars(plan, drawing), sep="\n")
    files.pictures(args, lambda: page_of(plan, {"prompt": api.PROMPT, **call}), plan)
    return 0 if plan.fits else 3
