"""Files that a verb writes beside its answer."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from memplan.errors import BadInput

if TYPE_CHECKING:
    from memplan.planner import Plan

KIB = 1024


def check(args: argparse.Namespace) -> None:
    """Raises BadInput where a picture that is asked for cannot be written, or is for calls alone."""
    asked = [name for name in ("html", "png", "save") if getattr(args, name, None)]
    if (args.train or args.differentiable) and asked:
        kind = "a training step" if args.train else "one that keeps gradients"
        raise BadInput(f"--{asked[0]} is for calls of a pipeline: {kind} has no timeline and no file")
    for file in filter(None, (args.html, args.png, getattr(args, "save", None))):
        writable(file)


def pictures(args: argparse.Namespace, page: Callable[[], str], plan: "Plan") -> None:
    """Writes the page, and a picture of `plan`, where they are asked for."""
    if args.html:
        write(args.html, page().encode())
    if args.png:
        from memplan.faces.report.png import picture

        write(args.png, picture(plan))


def writable(file: Path) -> None:
    """Raises BadInput where `file` cannot be written, before the work for it is done."""
    folder = file.resolve().parent
    if not folder.is_dir():
        raise BadInput(f"{file} cannot be written: there is no folder {folder}")
    if file.is_dir():
        raise BadInput(f"{file} cannot be written: it is a folder; name a file in it")


def folder(name: Path) -> None:
    """Raises BadInput where the folder `name` cannot be made, before the work for it is done; else it is there."""
    try:
        name.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{name} cannot be written: {error.strerror or error}") from error


def write(file: Path, content: bytes) -> None:
    """Writes `file` and says so. Raises BadInput where that fails."""
    try:
        file.write_bytes(content)
    except OSError as error:
        raise BadInput(f"{file} cannot be written: {error.strerror}") from error
    print(f"memplan: wrote {file}, {len(content) / KIB:,.0f} KiB", file=sys.stderr)
