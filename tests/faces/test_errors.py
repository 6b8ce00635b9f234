"""What nobody foresaw ends in a sentence and an exit code; a traceback is for --debug."""

import subprocess
import sys
from typing import Any, NoReturn

import pytest

from memplan.__main__ import main
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
