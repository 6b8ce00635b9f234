"""What goes to stderr beside the answer: progress, and our own warnings without those of the libraries."""

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from threading import Lock, Timer
from types import TracebackType
from typing import Any, Self, TextIO

import memplan
from memplan.catalogue import models
from memplan.faces.report.bars import COLOURS, PLAIN, Ink
from memplan.faces.report.layout import ENDLESS, WIDTH, paragraph
from memplan.probes.sources import look

PATIENCE = 1.0
"""Seconds of work before progress is shown."""
OURS = str(Path(memplan.__file__).parent)
NARROWEST, USUAL, WIDEST = 50, 100, 120
"""Characters of a line at least, where no terminal says, and at most."""
ERASE = "\r\x1b[K"


def width() -> int:
    """Characters of a line of the report: those of the terminal, or of $COLUMNS, within bounds."""
    return _columns(sys.stdout) or USUAL


def _columns(stream: TextIO) -> int | None:
    """The same of a stream; None where neither a terminal nor $COLUMNS says."""
    if not (stream.isatty() or os.environ.get("COLUMNS")):
        return None
    return min(max(shutil.get_terminal_size((USUAL, 24)).columns, NARROWEST), WIDEST)


def say(text: str, by: str = "memplan") -> None:
    """A sentence on stderr, wrapped where that is a terminal: other programs read one line."""
    before = WIDTH.set(_columns(sys.stderr) or ENDLESS)
    try:
        print(*paragraph(f"{by}: {text}", 0, 2), sep="\n", file=sys.stderr)
    finally:
        WIDTH.reset(before)


def printable() -> None:
    """Has what the terminal's encoding lacks shown as "?", so that no answer is lost for a character."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def ink(*, asked: bool) -> Ink | None:
    """How bars are drawn here, or None where they are not: in pipes they are only if `asked` for, and never coloured.

    $NO_COLOR, if it is not empty, takes the colours away (no-color.org), and so does a terminal that is dumb.
    """
    there = sys.stdout.isatty()
    if not (there or asked):
        return None
    try:
        Ink().marks.encode(sys.stdout.encoding or "ascii")
        plain = Ink()
    except UnicodeEncodeError:
        plain = PLAIN
    coloured = there and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return replace(plain, colours=COLOURS) if coloured else plain


class Progress:
    """Shows what is being done, from one second on; on a terminal in one line that goes away at the end."""

    def __init__(self) -> None:
        self._message, self._shown, self._lock = "", False, Lock()
        self._timer = Timer(PATIENCE, self._show)
        self._timer.daemon = True

    def __call__(self, message: str) -> None:
        """The work that begins now."""
        with self._lock:
            self._message = message
            if self._shown:
                self._write()

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            if self._shown and sys.stderr.isatty():
                print(ERASE, end="", file=sys.stderr, flush=True)
            self._shown = False

    def _show(self) -> None:
        with self._lock:
            self._shown = True
            if self._message:
                self._write()

    def _write(self) -> None:
        start, end = (ERASE, "") if sys.stderr.isatty() else ("", "\n")
        print(f"{start}memplan: {self._message} …", end=end, file=sys.stderr, flush=True)


def say_which(source: str) -> None:
    """Tells which bundled model is taken where another name of it was typed."""
    base, _, _ = source.partition(",")
    name = models.alias(base)
    if name and isinstance(look(base), str):
        print(f"memplan: {base} is taken for {name}", file=sys.stderr)


@contextmanager
def only_ours(*, everything: bool = False) -> Generator[None]:
    """Let memplan's warnings through, one line each, and keep back what other libraries log and warn of."""
    if everything:
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = _show
            yield
    finally:
        logging.disable(before)


def _show(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
    if filename.startswith(OURS):
        print(f"memplan: {message}", file=sys.stderr)
