"""Load a pipeline, make one real call, and hold what it took against what was predicted.

Unlike the other verbs it loads the weights and computes with them. Without --with the balanced pick
is applied. On CUDA and XPU the peaks are those of PyTorch's allocator; on the CPU only seconds and
host memory are measured. The run is kept for memplan history.
"""

import argparse
from inspect import signature
from typing import Any

from memplan.faces.cli import options
from memplan.faces.cli.terminal import Progress, say_which


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be typed."""
    options.add_model(parser)
    parser.add_argument("--with", dest="plan", metavar="PLAN", help="a plan as memplan writes it; the pick without one")
    parser.add_argument(
        "--device", default="cuda", metavar="NAME", help="as torch calls it; the default is cuda, and cpu is for trials"
    )
    parser.add_argument("--force", action="store_true", help="load and call it though the plan does not fit")
    parser.add_argument("--no-record", action="store_true", help="keep nothing of it")
    options.add_call(parser)
    options.add_machine(parser)
    options.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Load, call and print."""
    from memplan.faces.load import load
    from memplan.faces.oom.guard import guard
    from memplan.faces.report import history
    from memplan.faces.verify import verify

    call, reading = options.call(args), options.reading(args)
    variant = reading.pop("variant")
    chosen = {"device": args.device, "force": args.force, "options": {"variant": variant} if variant else {}}
    say_which(args.model)
    with Progress() as progress:
        pipe = load(args.model, args.plan, progress=progress, **chosen, **reading, **call)
        keep = {"target": reading["target"], "record": not args.no_record}
        with guard(pipe):
            found = verify(pipe, progress=progress, **keep, **real(pipe, call))
    print(history.as_json([found], None) if args.json else history.run(found))
    return 0


def real(pipe: Any, call: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the call itself: pictures in place of their paths, and the prompt that was planned with."""
    from memplan.faces.api import PROMPT
    from memplan.probes.trace.inputs import read

    takes = "prompt" in signature(type(pipe).__call__).parameters
    embedded = any(name.endswith("prompt_embeds") for name in call)
    return {**({"prompt": PROMPT} if takes and not embedded else {}), **read(pipe, call)}
