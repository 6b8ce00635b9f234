"""The command line: one file per verb, each with its options and what it calls.

Exit codes: 0 something fits, 2 the input is bad, 3 nothing fits, 1 anything else.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from inspect import cleandoc
from textwrap import shorten

from memplan.errors import BadInput, MemplanError, NothingFits
from memplan.faces.cli import (
    apply,
    calibrate,
    compare,
    explain,
    history,
    matrix,
    patch,
    price,
    probe,
    recommend,
    run,
    ui,
    verify,
)
from memplan.faces.cli.completion import complete
from memplan.faces.cli.parser import Help, Parser
from memplan.faces.cli.terminal import only_ours, printable, say, width
from memplan.faces.quiet import LOUD
from memplan.faces.report.layout import WIDTH
from memplan.faces.typed import sentence

VERBS = (probe, recommend, price, matrix, explain, patch, apply, calibrate, run, verify, compare, history, ui)
"""A verb is a module: its name is typed, its docstring is the help; add_options(parser) and run(args) -> exit code.

One that sets `bare` runs a program of the user's: what that says and raises is left as it is."""
INTERRUPTED = 130
LONGEST = 300
"""Characters of an error of others in a sentence of ours."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the value is the exit code."""
    try:
        args = _parsed(argv)
        if isinstance(args, int) or "bare" not in args:
            code = args if isinstance(args, int) else _answered(args)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        # The reader went away, as `head` does; what is left to flush at exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return int(args.run(args))


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace | int:
    """What was typed, or the exit code where that is answered: help, and what cannot be understood."""
    try:
        args, unknown = _parser().parse_known_args(argv)
        if unknown:
            args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    except SystemExit as end:
        return int(end.code or 0)
    return args


def _answered(args: argparse.Namespace) -> int:
    """Run a verb of ours; what goes wrong becomes a sentence on stderr, and a traceback only with --debug."""
    printable()
    before = LOUD.set(args.debug), WIDTH.set(width())
    try:
        with only_ours(everything=args.debug):
            code: int = args.run(args)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if args.debug:
            raise
        say(_sentence(error))
        return _code(error)
    finally:
        LOUD.reset(before[0])
        WIDTH.reset(before[1])


def _sentence(error: Exception) -> str:
    if isinstance(error, MemplanError):
        return sentence(error)
    what = shorten(f"{type(error).__name__}: {error}".removesuffix(": "), LONGEST, placeholder=" …")
    return f"it stopped at an error that it does not expect, {what}. With --debug it shows where: please report that"


def _code(error: Exception) -> int:
    if isinstance(error, BadInput):
        return 2
    return 3 if isinstance(error, NothingFits) else 1


def _parser() -> Parser:
    parser = Parser(
        prog="memplan",
        description="Says whether a diffusion pipeline fits a GPU, with which techniques, and what to type.",
        epilog="Sizes are GiB and MiB: 1 GiB = 1024 MiB. Exit codes: 0 something fits, 2 bad input, 3 nothing fits.",
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"memplan {version('memplan')}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for module in VERBS:
        first, _, rest = cleandoc(module.__doc__ or "").partition("\n")
        verb = verbs.add_parser(
            module.__name__.rpartition(".")[2],
            help=first,
            description=first,
            epilog=rest.strip() or None,
            formatter_class=Help,
            allow_abbrev=False,
        )
        module.add_options(verb)
        if not verb.get_default("bare"):
            verb.add_argument("--debug", action="store_true", help="show tracebacks, and what the libraries say")
        verb.set_defaults(run=module.run, parser=verb)
    parser.verbs = tuple(verbs.choices)
    complete(parser, verbs.choices.values())
    return parser
