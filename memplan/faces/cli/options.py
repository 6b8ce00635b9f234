"""Options that verbs share, and what they mean."""

import argparse
import ast
from pathlib import Path
from typing import Any

from memplan.catalogue import models
from memplan.errors import BadInput
from memplan.faces.api import Target
from memplan.faces.limits import EXAMPLE
from memplan.facts import AUTOCASTS, KINDS_OF_TRAINING, OPTIMIZERS, Differentiable, Training

CALL = (
    (("--prompt",), str, "TEXT"),
    (("--negative-prompt",), str, "TEXT"),
    (("--height",), int, "PIXELS"),
    (("--width",), int, "PIXELS"),
    (("--num-frames",), int, "N"),
    (("--num-inference-steps", "--steps"), int, "N"),
    (("--guidance-scale",), float, "X"),
    (("--num-images-per-prompt", "--batch"), int, "N"),
    (("--max-sequence-length",), int, "TOKENS"),
)
"""The arguments that most pipelines take."""
OWN = ("source", "plan", "target", "dtype", "variant", "cache", "progress", "train", "differentiable")
"""Names that mean something else to memplan than to a pipeline."""


def add_model(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """The pipeline to plan for."""
    sources = (
        "a folder of save_pretrained, a checkpoint file, a Hub id (owner/name or owner/name@revision), or a bundled "
        f"name, each also as MODEL,COMPONENT=FILE.gguf; the bundled ones: {', '.join(models.names())}"
    )
    parser.add_argument("model", metavar="MODEL", nargs="?" if optional else None, help=sources)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """The machine to plan for."""
    group = parser.add_argument_group("machine", "The present one, but for what is given. Sizes are GiB.")
    group.add_argument("--gpu", metavar="NAME", help='a card of the catalogue, e.g. "RTX 4070"')
    group.add_argument("--vram", type=float, metavar="GIB", help="device memory")
    group.add_argument("--ram", type=float, metavar="GIB", help="host memory")
    add_limits(group)


def add_limits(group: "argparse._ArgumentGroup") -> None:
    """What plans may use of a machine."""
    group.add_argument("--reserve", type=float, default=0.0, metavar="GIB", help="device memory to keep free")
    group.add_argument(
        "--limit",
        default="",
        metavar="LIMITS",
        help=f'what plans may take, and how slow and lossy they may be: "{EXAMPLE}"',
    )


def add_call(parser: argparse.ArgumentParser) -> None:
    """The call to plan for."""
    group = parser.add_argument_group("call", "The arguments of the pipeline's own call; its defaults hold.")
    for names, kind, metavar in CALL:
        group.add_argument(*names, type=kind, metavar=metavar)
    group.add_argument(
        "--call", action="append", default=[], metavar="NAME=VALUE", help="any other argument; the value as in Python"
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    """The training step to plan for, in place of a call."""
    group = parser.add_argument_group("training", "A step of training the denoiser; the call's options say on what.")
    group.add_argument("--train", choices=KINDS_OF_TRAINING, help="adapters, or all weights; --batch are its samples")
    group.add_argument("--optimizer", choices=OPTIMIZERS, help=f"{OPTIMIZERS[0]} where none is named")
    group.add_argument("--accumulate", type=int, metavar="N", help="batches whose gradients are added up for one step")
    group.add_argument("--ema", action="store_true", default=None, help="keep averages of the trained weights")
    group.add_argument(
        "--autocast", choices=AUTOCASTS, help="the forward computes in it, and weights stay in the dtype of --dtype"
    )
    group.add_argument("--rank", type=int, metavar="N", help="rank of the adapters")
    group.add_argument("--targets", type=_names, metavar="LAYERS", help='layers to adapt, as "to_q,to_v"')


def add_gradients(parser: argparse.ArgumentParser) -> None:
    """The call to plan for keeps gradients."""
    group = parser.add_argument_group("gradients", "A call inside of memplan.differentiable(), with its backward().")
    group.add_argument("--differentiable", action="store_true", help="the call keeps gradients through all its steps")
    group.add_argument("--last", type=int, metavar="K", help="through its last K steps alone, which changes gradients")


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))


def add_reading(parser: argparse.ArgumentParser) -> None:
    """How the pipeline is read and the answer given."""
    add_dtype(parser)
    parser.add_argument("--no-cache", action="store_true", help="measure anew, and keep nothing")
    add_json(parser)


def add_bars(parser: argparse.ArgumentParser) -> None:
    """Bars beside the table."""
    parser.add_argument("--bars", action="store_true", help="peaks as bars, as on a terminal, also where this is piped")


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """The dtype that the pipeline is loaded in, and which of its files."""
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="load the pipeline in this dtype")
    parser.add_argument("--variant", default="", metavar="NAME", help='load this variant of its files, as "fp16"')


def add_json(parser: argparse.ArgumentParser) -> None:
    """The answer for other programs."""
    parser.add_argument("--json", action="store_true", help="for other programs; sizes in bytes")


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Files that are written beside the answer."""
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with timelines of memory, too")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write a picture of the timeline of one plan, too")


# ---- meaning ---------------------------------------------------------------------------------------------------------
def target(args: argparse.Namespace) -> Target:
    """The machine that the options name."""
    return Target(args.gpu, args.vram, args.ram, args.reserve, args.limit)


def call(args: argparse.Namespace) -> dict[str, Any]:
    """The call's arguments that were given. Raises BadInput for one that is no NAME=VALUE."""
    common = {name: getattr(args, name) for name in _common()}
    given = {name: value for name, value in common.items() if value is not None}
    for text in args.call:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise BadInput(f"--call {text} is no NAME=VALUE, as in --call output_type=latent")
        if name in OWN:
            raise BadInput(f"--call {name}=… is not an argument of pipelines: leave it out")
        given[name] = _value(name, value)
    return given


def training(args: argparse.Namespace, call: dict[str, Any]) -> Training | None:
    """The training step that the options name, which takes the batch out of `call`; None where they name none.

    Raises BadInput for options of training without --train.
    """
    named = {name: getattr(args, name) for name in ("optimizer", "accumulate", "ema", "rank", "targets")}
    given = {name: value for name, value in named.items() if value is not None}
    given |= {"autocast": AUTOCASTS[args.autocast]} if args.autocast else {}
    if args.train:
        return Training(args.train, batch=call.pop("num_images_per_prompt", None), **given)
    if given:
        raise BadInput(f"--{next(iter(given))} is for training: say --train lora or --train full")
    return None


def differentiable(args: argparse.Namespace) -> Differentiable | None:
    """What of the call keeps gradients; None for one that keeps none. Raises BadInput for --last by itself."""
    if args.last is not None and not args.differentiable:
        raise BadInput("--last says through how many steps a call keeps gradients: say --differentiable too")
    return Differentiable(args.last) if args.differentiable else None


def typed(change: dict[str, Any]) -> str:
    """Arguments of a call as the options that set them."""
    common = _common()
    options = (f"--{n.replace('_', '-')} {v}" if n in common else f"--call {n}={v}" for n, v in change.items())
    return " ".join(options)


def reading(args: argparse.Namespace) -> dict[str, Any]:
    """How to read the pipeline, as the Python face takes it."""
    return {"target": target(args), "dtype": args.dtype, "variant": args.variant, "cache": not args.no_cache}


def _common() -> list[str]:
    return [names[0].removeprefix("--").replace("-", "_") for names, _, _ in CALL]


def _value(name: str, text: str) -> Any:
    """A value of Python, or text. Raises BadInput for half a list or table."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if text.startswith(("[", "{")):
            raise BadInput(f"--call {name}={text} is no value of Python; put text into quotes of its own") from None
        return text
