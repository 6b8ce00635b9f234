"""Writes the help of every verb into tests/faces/help: `python -m tests.faces.help_texts`. Read what changed."""

import contextlib
import io
import os
from pathlib import Path
from textwrap import fill
from unittest.mock import patch

from memplan.faces.cli import VERBS, main

FOLDER = Path(__file__).parent / "help"
ITSELF = "memplan"
"""The file of the help without a verb."""
WIDTH = 100


def names() -> tuple[str, ...]:
    """The files, without their suffix: one for each verb, and one for memplan itself."""
    return (ITSELF, *(module.__name__.rpartition(".")[2] for module in VERBS))


def file(name: str) -> Path:
    """Where the help of that name is kept."""
    return FOLDER / f"{name}.txt"


def text(name: str) -> str:
    """The help as it is printed now. Its usage is wrapped anew: where argparse breaks it depends on the Python."""
    words = ["--help"] if name == ITSELF else [name, "--help"]
    out = io.StringIO()
    with patch.dict(os.environ, {"COLUMNS": str(WIDTH)}), contextlib.redirect_stdout(out):
        assert main(words) == 0
    usage, rest = out.getvalue().split("\n\n", 1)
    usage = fill(" ".join(usage.split()), WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return f"{usage}\n\n{rest}"


if __name__ == "__main__":
    for one in names():
        file(one).write_text(text(one), encoding="utf-8")
