"""Hooks for errors that nobody catches: of the program, of its threads and of notebooks."""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from memplan.faces.oom.tell import answer_file, tell

AFTER_CELL = "post_run_cell"


@dataclass(eq=False)
class Installed:
    """The hooks that install() has set; undo() takes them off."""

    json: Path | None = None
    active: bool = True
    _undos: tuple[Callable[[], None], ...] = ()

    def undo(self) -> None:
        """Take the hooks off; a second time it does nothing. One that another program has wrapped since stays, idle."""
        global _installed  # noqa: PLW0603  (a process has one of these)
        self.active = False
        for undo in self._undos:
            undo()
        self._undos = ()
        if _installed is self:
            _installed = None

    def answer(self, error: BaseException | None) -> None:
        """Answer an error that was shown."""
        if self.active and error is not None:
            tell(error, json=self.json)


_installed: Installed | None = None


def install(*, json: str | Path | None = None) -> Installed:
    """Answer every error of this process that says that memory ran out and that nobody catches.

    After its traceback, on stderr: the phase and the module, what was asked for, what was held, how much was missing,
    and the cheapest plan that would have fitted, with its code. `json` is a file for the answer. Threads are covered,
    and in IPython and Jupyter cells and what they run, with the last error that was shown before. It costs nothing
    until then. Called again, only `json` changes.
    """
    global _installed  # noqa: PLW0603
    if _installed is None:
        _installed = Installed()
        _installed._undos = (_in_program(_installed), in_threads(_installed), _in_cells(_installed))
    _installed.json = answer_file(json)
    return _installed


def _in_program(own: Installed) -> Callable[[], None]:
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        try:
            before(kind, error, trace)
        finally:
            own.answer(error)

    def undo() -> None:
        if sys.excepthook is hook:
            sys.excepthook = before

    sys.excepthook = hook
    return undo


def in_threads(own: Installed) -> Callable[[], None]:
    """Have `own` answer what ends a thread; the value takes that off."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        try:
            before(args)
        finally:
            own.answer(args.exc_value)

    def undo() -> None:
        if threading.excepthook is hook:
            threading.excepthook = before

    threading.excepthook = hook
    return undo


def _in_cells(own: Installed) -> Callable[[], None]:
    """IPython shows a cell's error by itself, and then tells who asked: no handler of anybody's is replaced."""
    shell = _shell()
    if shell is None:
        return lambda: None

    def after(result: Any) -> None:
        shown = getattr(sys, "last_value", None)  # by a magic such as %run, whose cell ends well
        own.answer(getattr(result, "error_in_exec", None) or shown)

    shell.events.register(AFTER_CELL, after)
    return lambda: shell.events.unregister(AFTER_CELL, after)


def _shell() -> Any:
    """IPython's shell, where this process is one."""
    get = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get() if get else None
