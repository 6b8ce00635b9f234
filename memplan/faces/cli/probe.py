"""Show the machine, and what a pipeline is made of."""

import argparse

from memplan.faces import api
from memplan.faces.cli.options import add_dtype, add_json, add_machine, add_model, target
from memplan.faces.cli.terminal import Progress, say_which
from memplan.probes.sources import look


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be typed."""
    add_model(parser, optional=True)
    add_machine(parser)
    add_dtype(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from memplan.faces.report import hardware, json

    if args.model is not None:
        look(args.model)
        say_which(args.model)
    here = api.machine(target(args))
    model = None
    if args.model is not None:
        with Progress() as progress:
            progress(f"reading {args.model}")
            model = api.probe(args.model, dtype=args.dtype, variant=args.variant)
    if args.json:
        print(json.probe(here, model))
        return 0
    print("\n".join([*hardware.machine(here), *hardware.disk(here)]))
    if model is not None:
        print(hardware.model(model))
    return 0
