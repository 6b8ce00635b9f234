"""Run a script with a saved plan for its pipeline, which the script need not know of.

The plan is priced anew for this machine, its libraries and the script's own call, and is applied
before the first call of a pipeline of its class; what the script does to place that pipeline is
left undone. Where the plan no longer fits, the script ends there with the figures, and exit code 3.
All that follows the script is the script's.
"""

import argparse
import sys

from memplan.errors import MemplanError
from memplan.faces.cli import options


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be typed."""
    parser.usage = "memplan apply [-h] [--device NAME] [--force] [MACHINE ...] PLAN SCRIPT [ARGS ...]"
    parser.add_argument("--device", default="cuda", metavar="NAME", help="as torch calls it; the default is cuda")
    parser.add_argument("--force", action="store_true", help="apply it even where it does not fit")
    options.add_machine(parser)
    parser.add_argument("plan", metavar="PLAN", help="a file of memplan recommend --save")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="SCRIPT", help="the script, and its arguments")
    parser.set_defaults(bare=True)


def run(args: argparse.Namespace) -> int:
    """Run it; errors of the script go on to the interpreter. Ends the program where there is nothing to run."""
    from memplan.faces.oom import script
    from memplan.faces.travel.files import load
    from memplan.faces.travel.running import Running
    from memplan.faces.typed import sentence

    if not args.command:
        args.parser.error("there is nothing to run: write memplan apply plan.json script.py")
    name, *rest = args.command
    try:
        running = Running(load(args.plan), args.device, options.target(args), force=args.force)
        job = script.script(name, rest)
    except MemplanError as error:
        args.parser.error(sentence(error))
    else:
        running.install()
        job()
        if running.unused:
            print(f"memplan: the plan was applied to nothing: {running.unused}", file=sys.stderr)
    return 0
