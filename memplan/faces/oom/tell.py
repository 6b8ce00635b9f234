"""Tells the answer on stderr and in a file, and never stands in the error's way."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from memplan.faces.oom.cause import out_of_memory
from memplan.oom import Allocation

TOLD = "_memplan_told"
"""The mark of an error that was answered, with the answer as JSON: a hook may see again what a guard has seen."""


def answer_file(json: str | Path | None) -> Path | None:
    """The file of an answer, wherever the program works by then."""
    return None if json is None else Path(json).absolute()


def tell(error: BaseException, *, pipe: Any = None, json: Path | None = None) -> bool:
    """Print the answer to `error` where memory ran out, and write it to `json`; the value is whether it was answered.

    One that was answered before is written alone. Whatever goes wrong in here is one line on stderr. An interrupt stops
    the answer and nothing else.
    """
    try:
        return _told(error, pipe, json)
    except KeyboardInterrupt:
        say("memplan: the answer was interrupted")
    except BaseException as ours:
        say(f"memplan: this error could not be answered: {type(ours).__name__}: {ours}")
    return False


def _told(error: BaseException, pipe: Any, json: Path | None) -> bool:
    found = out_of_memory(error)
    if found is None:
        return False
    cause, failed = found
    marks = vars(cause)
    first = TOLD not in marks
    if first:
        marks[TOLD] = ""  # whatever becomes of it, it is not tried again
        marks[TOLD] = _answered(cause, failed, pipe)
    if json is not None and marks[TOLD]:
        _write(json, marks[TOLD])
    return first


def _answered(error: BaseException, failed: Allocation, pipe: Any) -> str:
    """Prints the answer; the value is the same as JSON."""
    from memplan.faces.oom.answer import diagnosis, with_plan
    from memplan.faces.report import oom as report

    answer, scene = diagnosis(error, failed, pipe)
    say(f"\n{report.diagnosis(answer)}")
    if scene.pipe is not None or scene.source:
        say("memplan: looking for the cheapest plan that fits …")
    answer = with_plan(answer, scene)
    say(report.advice(answer))
    return report.as_json(answer)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        say(f"memplan: the answer could not be written to {file}: {error.strerror or error}")


def say(text: str) -> None:
    """One line or more on stderr, where there is one that takes them: what cannot be said stops nothing."""
    with suppress(Exception):
        if sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)
