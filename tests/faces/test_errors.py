"""What nobody foresaw ends in a sentence and an exit code; a traceback is for --debug."""

import subprocess
import sys
from typing import Any, NoReturn

import pytest

from memplan.__main__ import main
from memplan.errors import NoDevice, NoGpu, NoRoom
from memplan.faces.cli import explain

RECOMMEND = "memplan.faces.cli.recommend.api.recommend"


def raising(error: BaseException) -> Any:
    def fails(*_: Any, **__: Any) -> NoReturn:
        raise error

    return fails


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("conv_in"), "KeyError: 'conv_in'"),
        (RuntimeError("a line\n  and another"), "RuntimeError: a line and another"),
        (RecursionError(), "RecursionError"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
    ],
)
def test_an_error_that_is_not_expected_is_one_sentence(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RECOMMEND, raising(error))
    assert main(["recommend", "sdxl", "--vram", "8"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"memplan: it stopped at an error that it does not expect, {said}. "
        "With --debug it shows where: please report that\n"
    )


def test_a_long_error_is_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(RECOMMEND, raising(ValueError("very " * 1000)))
    assert main(["recommend", "sdxl", "--vram", "8"]) == 1
    err = capsys.readouterr().err
    assert "very …. With --debug" in err
    assert len(err) < 450


def test_debug_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RECOMMEND, raising(KeyError("conv_in")))
    with pytest.raises(KeyError, match="conv_in"):
        main(["recommend", "sdxl", "--vram", "8", "--debug"])


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(explain, "run", raising(KeyboardInterrupt()))
    assert main(["explain"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("line", ["explain", "--help", "recommend --help"])
def test_a_reader_that_goes_away_is_no_error(line: str) -> None:
    command = [sys.executable, "-m", "memplan", *line.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize(("columns", "lines"), [("60", 3), ("", 1)])
def test_a_sentence_is_wrapped_where_somebody_reads_it(
    columns: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["explain", "vae_tilling"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) >= lines
    assert (len(said) == 1) is (not columns)
    assert all(len(line) <= 60 for line in said) is bool(columns)
    assert main(["sing"]) == 2
    assert max(map(len, capsys.readouterr().err.splitlines()[1:])) <= 60 or not columns


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoGpu("No GPU."), '--gpu "RTX 4070" names a card'),
        (NoDevice("There is no cuda device here."), 'by --device cpu, for a card: --gpu "RTX 4070" names a card'),
        (NoRoom("It needs 9 GiB."), "or say --force to do it"),
    ],
)
def test_what_to_do_is_an_option_at_the_command_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RECOMMEND, raising(error))
    assert main(["recommend", "sdxl", "--vram", "8"]) in (2, 3)
    typed = capsys.readouterr().err
    assert said in typed
    assert not set("=()") & set(typed), "an argument of Python"
    assert "=" in str(error)
