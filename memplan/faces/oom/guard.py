"""Answers an error where it is raised, for a stretch of a program."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memplan.faces.oom.tell import tell


@contextmanager
def guard(pipe: Any = None, *, json: str | Path | None = None) -> Generator[None]:
    """Answer an error inside that says that memory ran out, on stderr and in the file `json`; it is raised on.

    `pipe` is the pipeline at work; without it, it is found among the live ones. Every other error passes untouched.
    """
    try:
        yield
    except Exception as error:
        tell(error, pipe=pipe, json=json)
        raise
