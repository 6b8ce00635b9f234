"""Load a pipeline, call it without a plan and with it, and compare time, memory and pictures.

The same seeds and prompts in one process. It loads the weights and computes with them. Where the
whole pipeline does not fit the GPU, --against names a plan that changes nothing in the pictures, as
model_offload. PSNR and SSIM are those of torchmetrics (extra compare). A plan that fails is told,
with exit code 1.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan.errors import BadInput
from memplan.faces import api
from memplan.faces.api import numbered
from memplan.faces.cli import files, options
from memplan.faces.cli.terminal import Progress, say_which
from memplan.faces.cli.verify import real

if TYPE_CHECKING:
    from memplan.faces.compare.comparison import Comparison
    from memplan.planner import Plan, Saved

NONE = "none"
"""What people type for everything on the device."""
FOUND, FAILED = 0, 1
QUIET = {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR"}
"""Keeps torch's profiler from announcing itself; it is read when torch is imported."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be typed."""
    options.add_model(parser)
    plan = "a plan as memplan writes it, or a file of recommend --save"
    parser.add_argument("--with", "--plan", dest="plan", required=True, metavar="PLAN", help=plan)
    parser.add_argument(
        "--against", default=NONE, metavar="PLAN", help="the other side, likewise; none: everything on the device"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed; 0 where none is named")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="how many seeds, one call each")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="more calls of the first seed, for its time")
    parser.add_argument("--check-undo", action="store_true", help="see whether undoing the plan brings everything back")
    parser.add_argument("--lpips", action="store_true", help="download the weights that LPIPS needs")
    parser.add_argument("--device", default="cuda", metavar="NAME", help="as torch calls it; the default is cuda")
    parser.add_argument("--force", action="store_true", help="load and call it though a plan does not fit")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write both sides and their difference as a picture")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write each picture of both sides into this folder")
    options.add_call(parser)
    options.add_machine(parser)
    options.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Load, call and print."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from memplan.faces.compare import table

    if args.png:
        files.writable(args.png)
    if args.out:
        files.folder(args.out)
    say_which(args.model)
    with Progress() as progress:
        found = _compared(args, progress)
    print(table.as_json(found) if args.json else table.table(found))
    if not found.plan.failed:
        _write(args, found)
    return FAILED if found.plan.failed else FOUND


def _write(args: argparse.Namespace, found: "Comparison") -> None:
    """The outputs first: a call that returns no pictures has none of both sides, which is said then."""
    if args.out:
        print(f"memplan: wrote {len(found.save(args.out))} files into {args.out}", file=sys.stderr)
    if args.png:
        files.write(args.png, found.picture())


def _compared(args: argparse.Namespace, progress: Progress) -> "Comparison":
    """Price both plans, load the pipeline, and compare; nothing is loaded for a plan that is refused."""
    from memplan.applier import check_device
    from memplan.faces.compare import compare
    from memplan.faces.compare.running import Caller
    from memplan.faces.oom.guard import guard

    plan, against = _named(args.plan), _named(args.against)
    call = {**getattr(plan, "call", {}), **options.call(args)}
    compare.check(args.seeds, args.repeat, call)
    check_device(args.device)
    plans, reading = _planned(args, (compare.parts(against), compare.parts(plan)), call, progress)
    pipe = _loaded(args, plans[0], reading, call, progress)
    asked = numbered(options.target(args), args.device)
    seeds = tuple(range(args.seed, args.seed + args.seeds))
    with guard(pipe):
        caller = Caller(pipe, real(pipe, call), seeds, args.repeat, progress)
        said = {"check_undo": args.check_undo, "lpips": args.lpips}
        return compare.compared(caller, plans, args.device, predicted=reading["target"] == asked, **said)


def _planned(
    args: argparse.Namespace, both: tuple[Any, Any], call: dict[str, Any], progress: Progress
) -> "tuple[tuple[Plan, Plan], dict[str, Any]]":
    """Both plans, and how the pipeline is read."""
    from memplan.faces.compare.compare import ready, rehearsed
    from memplan.registry import switches

    reading = options.reading(args)
    reading["target"] = rehearsed(numbered(reading["target"], args.device), args.device)
    asked = switches([*both[0], *both[1]])
    measured = api.facts(args.model, call, progress=progress, switches=asked, **reading)
    return ready(api.of_kind(args.device, measured), both, reading["target"], force=args.force), reading


def _loaded(
    args: argparse.Namespace, plan: "Plan", reading: dict[str, Any], call: dict[str, Any], progress: Progress
) -> Any:
    """The pipeline as it is without a plan, loaded where `plan` says that there is room for it."""
    from memplan.faces.live import applied
    from memplan.faces.load import load

    how = {name: value for name, value in reading.items() if name != "variant"}
    chosen = {"variant": reading["variant"]} if reading["variant"] else {}
    pipe = load(
        args.model, plan, device=args.device, force=args.force, options=chosen, progress=progress, **how, **call
    )
    done = applied(pipe)
    if done is not None:
        done.undo()
    return pipe


def _named(plan: str) -> "str | Saved":
    """A plan, or that of a file."""
    from memplan.faces.travel.files import load

    if plan == NONE:
        return ""
    if plan.endswith(".json"):
        return load(plan)
    if Path(plan).is_file():
        raise BadInput(f"{plan} is a file: plans of memplan recommend --save end in .json")
    return plan
