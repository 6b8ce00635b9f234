"""install(): what nobody catches is answered after it was shown; nothing is left behind."""

import sys
import threading
from collections.abc import Generator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import memplan
from memplan.faces.oom import hooks, tell


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> Generator[list[str]]:
    """What was shown and answered, in order; the program's own hooks come back."""
    order: list[str] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: order.append(f"shown {error}"))
    monkeypatch.setattr(threading, "excepthook", lambda args: order.append(f"shown {args.exc_value}"))
    monkeypatch.setattr(hooks, "tell", lambda error, json=None: order.append(f"answered {error} {json or ''}".strip()))
    yield order
    if hooks._installed is not None:
        hooks._installed.undo()


def raised(error: BaseException) -> None:
    """As the interpreter does it for an error that nobody catches."""
    sys.excepthook(type(error), error, None)


def test_the_error_is_shown_and_then_answered(said: list[str]) -> None:
    memplan.install()
    raised(MemoryError("a"))
    assert said == ["shown a", "answered a"]


def test_it_is_undone_and_leaves_nothing(said: list[str]) -> None:
    before = sys.excepthook, threading.excepthook
    installed = memplan.install()
    assert before != (sys.excepthook, threading.excepthook)
    installed.undo()
    installed.undo()
    assert before == (sys.excepthook, threading.excepthook)
    raised(MemoryError("a"))
    assert said == ["shown a"]


def test_installing_again_changes_the_file_alone(said: list[str]) -> None:
    first = memplan.install()
    assert memplan.install(json="answer.json") is first
    raised(MemoryError("a"))
    assert said == ["shown a", f"answered a {Path.cwd() / 'answer.json'}"]


def test_a_hook_that_somebody_put_around_ours_stays(said: list[str]) -> None:
    installed = memplan.install()
    ours = sys.excepthook

    def theirs(*args: Any) -> None:
        said.append("theirs")
        ours(*args)

    sys.excepthook = theirs
    installed.undo()
    assert sys.excepthook is theirs
    raised(MemoryError("a"))
    assert said == ["theirs", "shown a"]


def test_threads_are_covered(said: list[str]) -> None:
    memplan.install()

    def fails() -> None:
        raise MemoryError("in a thread")

    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()
    assert said == ["shown in a thread", "answered in a thread"]


def test_cells_of_a_notebook_are_covered(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the event that IPython documents; IPython itself is not needed here."""
    registered: list[Any] = []
    shell = SimpleNamespace(
        events=SimpleNamespace(
            register=lambda name, function: registered.append((name, function)),
            unregister=lambda name, function: registered.remove((name, function)),
        )
    )
    ipython: Any = ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    installed = memplan.install()
    ((name, after),) = registered
    assert name == "post_run_cell"
    after(SimpleNamespace(error_in_exec=MemoryError("in a cell")))
    after(SimpleNamespace(error_in_exec=None))
    assert said == ["answered in a cell"]
    installed.undo()
    assert not registered


def test_what_is_no_lack_of_memory_loads_nothing() -> None:
    """Neither planner nor torch is imported to find out; a ValueError costs what reading its text costs."""
    loaded = set(sys.modules)
    assert not tell.tell(ValueError("out of memory"))
    assert set(sys.modules) == loaded
