"""Say which plans fit, and which to take."""

import argparse
import sys
from pathlib import Path
from typing import Any

from memplan.faces import api
from memplan.faces.cli import files, options
from memplan.faces.cli.terminal import Progress, ink, say_which
from memplan.faces.nearest import Nearest, nearest_call
from memplan.planner import PREFERENCES, Recommendation

FITS, NOTHING_FITS = 0, 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be typed."""
    options.add_model(parser)
    options.add_call(parser)
    options.add_training(parser)
    options.add_gradients(parser)
    options.add_machine(parser)
    parser.add_argument("--prefer", choices=PREFERENCES, default="balanced", help="which pick comes first")
    parser.add_argument("--all", action="store_true", help="the whole front, and what was dropped and why")
    parser.add_argument("--explain", action="store_true", help="closed formulas beside the exact figures")
    parser.add_argument("--code", action="store_true", help="print the preferred plan as a script")
    options.add_bars(parser)
    options.add_pictures(parser)
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write the preferred plan into a file, for memplan apply"
    )
    options.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Plan and print."""
    from memplan.faces.report.html.page import page

    call, nearest = options.call(args), Nearest()
    purpose: dict[str, Any] = {"train": options.training(args, call), "differentiable": options.differentiable(args)}
    files.check(args)
    say_which(args.model)
    with Progress() as progress:
        found = api.recommend(args.model, progress=progress, **purpose, **options.reading(args), **call)
        if not found.picks and not any(purpose.values()):
            nearest = nearest_call(args.model, found, progress=progress, **options.reading(args), **call)
    if args.save:
        _save(args, found, call)
    print(_answer(args, found, call, nearest))
    shown = {"prompt": api.PROMPT, **call}
    files.pictures(args, lambda: page(found, shown, args.prefer, nearest), found.pick(args.prefer) or found.nearest)
    return FITS if found.picks else NOTHING_FITS


def _save(args: argparse.Namespace, found: Recommendation, call: dict[str, Any]) -> None:
    from memplan.faces.travel.files import save

    pick = found.pick(args.prefer)
    if pick is None:
        print(f"memplan: no plan fits, and {args.save} is not written", file=sys.stderr)
        return
    print(f"memplan: the plan is in {save(pick, args.save, call, args.dtype)}", file=sys.stderr)


def _answer(args: argparse.Namespace, found: Recommendation, call: dict[str, Any], nearest: Nearest) -> str:
    from memplan.faces.assembled import origin
    from memplan.faces.report import bars, code, explain, json, table

    if args.json:
        return json.recommendation(found, args.prefer, everything=args.all, nearest=nearest)
    pick = found.pick(args.prefer)
    if args.code and pick is not None:
        return code.script(pick, origin(found.facts.model.source), {"prompt": api.PROMPT, **call})
    parts = [table.recommendation(found, args.prefer, everything=args.all)]
    parts += [explain.explanation(found, everything=args.all)] if args.explain else []
    parts += [table.nothing_fits(found.nearest, nearest, options.typed)] if pick is None else []
    drawing = ink(asked=args.bars)
    parts += ["\n".join(bars.bars(pick or found.nearest, drawing))] if drawing else []
    return "\n\n".join(parts)
