"""Answers an error where it is raised, for a stretch of a program."""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from memplan.faces.history.recording import recording
from memplan.faces.oom.tell import tell


@contextmanager
def guard(pipe: Any = None, *, json: str | Path | None = None, record: bool = False) -> Generator[None]:
    """Answer an error inside that says that memory ran out, on stderr and in the file `json`; it is raised on.

    `pipe` is the pipeline at work; without it, it is found among the live ones. Every other error passes untouched.
    With `record` each call inside is measured, predicted and kept on this machine, as recording() says.
    """
    try:
        with recording(pipe) if record else nullcontext():
            yield
    except Exception as error:
        tell(error, pipe=pipe, json=json)
        raise
