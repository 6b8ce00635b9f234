"""Answers an error where it is raised, for a stretch of a program."""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from memplan.errors import BadInput
from memplan.faces.history.recording import recording
from memplan.faces.oom.frames import is_pipeline
from memplan.faces.oom.retry import retrying
from memplan.faces.oom.tell import answer_file, tell


@contextmanager
def guard(
    pipe: Any = None, *, json: str | Path | None = None, retry: bool = False, record: bool = False
) -> Generator[None]:
    """Answer an error inside that says that memory ran out, on stderr and in the file `json`; it is raised on.

    `pipe` is the pipeline at work; without it, it is found among the live ones. Every other error passes untouched.
    With `record` each call inside is measured, predicted and kept on this machine, as recording() says.

    With `retry` a call of `pipe` inside that runs out of memory goes on with less of it: the component's call that
    failed is made again where it stands, with techniques that can be applied there, and what they changed is undone at
    the end of the guard. Where nothing helps, the first error is raised. Raises BadInput for a retry without `pipe`,
    and for a `pipe` that is no pipeline.
    """
    if pipe is not None and not is_pipeline(pipe):
        raise BadInput(f"a guard is that of a pipeline, and {type(pipe).__name__} is none")
    if retry and not is_pipeline(pipe):
        raise BadInput("a retry is that of one pipeline: write memplan.guard(pipe, retry=True)")
    file = answer_file(json)
    try:
        with recording(pipe) if record else nullcontext(), retrying(pipe) if retry else nullcontext():
            yield
    except Exception as error:
        tell(error, pipe=pipe, json=file)
        raise
