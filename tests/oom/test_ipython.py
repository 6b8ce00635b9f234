"""install() in a real shell of IPython: a cell shows its error as ever, and the answer comes after it."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

WHERE = "notebooks are tested where IPython is installed"
shells = pytest.importorskip("IPython.core.interactiveshell", reason=WHERE)
configs = pytest.importorskip("traitlets.config", reason=WHERE)

OUT = "raise MemoryError('Unable to allocate 2.00 GiB for an array with shape (1,) and data type uint8')"
ANSWER = "memplan: Host memory ran out"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Any]:
    """A shell that keeps nothing, and in which install() was called."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    made = shells.InteractiveShell.instance(
        config=configs.Config(HistoryManager={"enabled": False}, InteractiveShell={"colors": "NoColor"})
    )
    assert made.run_cell("import memplan; installed = memplan.install()").success
    try:
        yield made
    finally:
        made.run_cell("installed.undo()")
        shells.InteractiveShell.clear_instance()


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """All that is shown: IPython writes errors to stdout."""
    return "".join(capsys.readouterr())


def test_a_cells_error_is_shown_and_then_answered(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = shell.run_cell(OUT)
    text = said(capsys)
    assert isinstance(found.error_in_exec, MemoryError)
    assert text.index("MemoryError: Unable to allocate") < text.index(ANSWER)
    assert text.count(ANSWER) == 1
    assert shell.run_cell("1 + 1").success
    assert ANSWER not in said(capsys)


@pytest.mark.parametrize(
    "cell", ["1 / 0", "x = = 1", "raise KeyboardInterrupt", "no_such_name", "import sys; sys.exit(3)"]
)
def test_others_are_shown_alone(shell: Any, cell: str, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_cell(cell)
    assert "memplan" not in said(capsys)


@pytest.mark.parametrize("cell", ["%run script.py", "%%time\n" + OUT, "async def f():\n    " + OUT + "\nawait f()"])
def test_an_error_that_a_magic_shows_is_answered_too(
    shell: Any, cell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "script.py").write_text(OUT, "utf-8")
    shell.run_cell(cell)
    shell.run_cell("1 + 1")
    text = said(capsys)
    assert text.index("MemoryError: Unable to allocate") < text.index(ANSWER)
    assert text.count(ANSWER) == 1


def test_an_error_shown_before_is_answered_where_memplan_is_installed_then(
    shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("installed.undo()")
    shell.run_cell(OUT)
    assert ANSWER not in said(capsys)
    shell.run_cell("installed = memplan.install()")
    assert ANSWER in said(capsys)


def test_a_guard_in_a_cell_answers_once(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_cell(f"with memplan.guard():\n    {OUT}")
    assert said(capsys).count(ANSWER) == 1


def test_undone_it_is_silent(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_cell("installed.undo()")
    shell.run_cell(OUT)
    assert ANSWER not in said(capsys)
