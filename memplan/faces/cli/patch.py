"""Put a plan into a script of yours, and show what that changes.

Without --plan it recommends one, for the model and the call that the script names. The script is
read and never run. Nothing is written without --write; what is not understood is refused with its
line. Patched again, a script changes only where the plan does.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan.errors import BadInput, NothingFits
from memplan.faces import api
from memplan.faces.cli import options
from memplan.faces.cli.terminal import Progress
from memplan.faces.typed import NAME_A_GPU
from memplan.planner import PREFERENCES, Plan, Saved

if TYPE_CHECKING:
    from memplan.faces.patching.chosen import Found

NEEDED = 'memplan patch needs libcst: pip install "memplan[patch]"'


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be typed."""
    parser.add_argument("script", metavar="SCRIPT", help="the file to patch")
    parser.add_argument("--plan", metavar="PLAN", help="a plan as memplan writes it, or a file of recommend --save")
    parser.add_argument(
        "--model", metavar="MODEL", help="the model that the script loads, where the script leaves it open"
    )
    parser.add_argument("--pipe", default="", metavar="NAME", help="which pipeline, of several: its name or its line")
    parser.add_argument("--prefer", choices=PREFERENCES, help="which pick, without a plan; balanced if left out")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--diff", action="store_true", help="show what would change, which is done without any option too"
    )
    what.add_argument("--write", action="store_true", help="change the file")
    options.add_call(parser)
    options.add_machine(parser)
    options.add_dtype(parser)
    parser.add_argument("--no-cache", action="store_true", help="measure anew, and keep nothing")


def run(args: argparse.Namespace) -> int:
    """Find, plan, and show or write."""
    try:
        from memplan.faces.patching.chosen import found
        from memplan.faces.patching.diff import diff
        from memplan.faces.patching.patch import patched
    except ModuleNotFoundError as error:
        raise BadInput(NEEDED if (error.name or "").startswith("libcst") else str(error)) from None
    if args.plan is not None and args.prefer is not None:
        raise BadInput("--prefer chooses among plans, and --plan names one: give one of the two")
    path = Path(args.script)
    before = _read(path)
    here = found(path.name, before, args.pipe)
    with Progress() as progress:
        plan = _plan(args, here, progress)
    done = patched(here, plan)
    for note in done.notes:
        print(f"memplan: {note}", file=sys.stderr)
    if done.source == before:
        print(f"memplan: {path.name} has this plan already: {plan}", file=sys.stderr)
    elif args.write:
        _write(path, done.source)
        print(f"memplan: {path.name} is written: {plan}", file=sys.stderr)
    else:
        print(diff(path.name, before, done.source), end="")
    return 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"the script {path} cannot be read: {error.strerror or error}") from None


def _write(path: Path, source: bytes) -> None:
    try:
        path.write_bytes(source)
    except OSError as error:
        raise BadInput(f"the script {path} cannot be written: {error.strerror or error}") from None


def _saved(plan: str | None) -> Saved | None:
    """The plan of a file, where one is named."""
    from memplan.faces.travel.files import load

    return load(plan) if plan and plan.endswith(".json") else None


def _plan(args: argparse.Namespace, here: "Found", progress: Progress) -> Plan:
    """The plan that is named, else the pick for what the script loads and calls. Raises NothingFits."""
    saved = _saved(args.plan)
    source, reading, call = _asked(args, here, saved)
    name = Path(args.script).name
    if args.plan is not None:
        plan = api.price(source, saved.plan if saved else args.plan, progress=progress, **reading, **call)
        if not plan.fits:
            missing = ", and ".join(map(str, plan.shortages))
            raise NothingFits(f"{name} is left as it is: the plan, {plan}, needs {missing}. {NAME_A_GPU}")
        return plan
    found = api.recommend(source, progress=progress, **reading, **call)
    pick = found.pick(args.prefer or "balanced")
    if pick is None:
        missing = ", and ".join(map(str, found.nearest.shortages))
        raise NothingFits(f"no plan fits, and {name} is left as it is; the nearest, {found.nearest}, needs {missing}")
    return pick


def _asked(args: argparse.Namespace, here: "Found", saved: Saved | None) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The source, how it is read, and the call: of what is typed, else of the script, else of the saved plan."""
    from memplan.faces.assembled import origin
    from memplan.faces.patching.subject import subject

    own = subject(here, tuple(name.removeprefix("--").replace("-", "_") for (name, *_), _, _ in options.CALL))
    then: Mapping[str, Any] = saved.model if saved else {"source": "", "dtype": None, "variant": ""}
    source = args.model or own.source or origin(then["source"])
    if not source:
        what = "which model is loaded here is not written out"
        raise here.script.refuse(here.pipeline.load, what, "name it with --model")
    reading: dict[str, Any] = options.reading(args)
    reading["dtype"] = args.dtype or own.dtype or then["dtype"]
    reading["variant"] = args.variant or own.variant or then["variant"]
    return source, reading, {**(saved.call if saved else {}), **own.call, **options.call(args)}
