"""Run a script as Python does, and answer it when memory runs out.

The answer comes after the traceback, on stderr: what ran out where, what was held, and the cheapest
plan that would have fitted, with its code. Traceback and exit code stay those of the script.
Options of memplan come before the script, all that follows is the script's.
"""

import argparse
from collections.abc import Generator
from contextlib import contextmanager, nullcontext

from memplan.errors import BadInput


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be typed."""
    parser.usage = "memplan run [-h] [--json FILE] [--retry] [--record] (SCRIPT | -m MODULE) [ARGS ...]"
    parser.add_argument("--json", metavar="FILE", help="write the answer to this file too; sizes in bytes")
    parser.add_argument(
        "--retry",
        action="store_true",
        help="have a pipeline's call that runs out of memory go on with less of it, from where it failed",
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="measure and predict each call of a pipeline, and keep both for memplan history; torch's peak statistics "
        "are reset meanwhile",
    )
    parser.add_argument(
        "-m",
        dest="module",
        nargs=argparse.REMAINDER,
        help="a module to run, as python -m does, and its arguments",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="SCRIPT", help="the script, and its arguments")
    parser.set_defaults(bare=True)


def run(args: argparse.Namespace) -> int:
    """Run it; errors of the script go on to the interpreter. Ends the program where there is nothing to run."""
    from memplan.faces.oom import script

    name, *rest = args.module or args.command or [""]
    if not name:
        args.parser.error("there is nothing to run: write memplan run script.py, or memplan run -m module")
    try:
        job = (script.module if args.module else script.script)(name, rest, args.json)
    except BadInput as error:
        args.parser.error(str(error))
    else:
        if args.retry:
            from memplan.faces.oom.retry import retry_everywhere

            retry_everywhere()
        with _recording() if args.record else nullcontext():
            job()
    return 0


@contextmanager
def _recording() -> Generator[None]:
    """Records calls, and says at the end of the script, however that comes, what was recorded."""
    from memplan.faces.history.recording import recording, told
    from memplan.faces.oom.tell import say

    with recording() as kept:
        try:
            yield
        finally:
            say(f"memplan: {told(kept)}")
