"""Tells the answer on stderr and in a file, and never stands in the error's way."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from memplan.faces.oom.cause import out_of_memory

TOLD = "_memplan_told"
"""The mark of an error that was answered: a hook may see again what a guard has seen."""


def tell(error: BaseException, *, pipe: Any = None, json: str | Path | None = None) -> bool:
    """Print the answer to `error` where memory ran out, and write it to `json`; the value is whether it was answered.

    Whatever goes wrong in here is one line on stderr. An interrupt stops the answer and nothing else.
    """
    try:
        return _told(error, pipe, json)
    except KeyboardInterrupt:
        say("memplan: the answer was interrupted")
    except BaseException as ours:
        with suppress(BaseException):
            say(f"memplan: this error could not be answered: {type(ours).__name__}: {ours}")
    return False


def _told(error: BaseException, pipe: Any, json: str | Path | None) -> bool:
    if not isinstance(error, Exception) or TOLD in vars(error):
        return False
    found = out_of_memory(error)
    if found is None:
        return False
    from memplan.faces.oom.answer import diagnosis, with_plan
    from memplan.faces.report import oom as report

    vars(error)[TOLD] = True
    answer, scene = diagnosis(*found, pipe)
    say(f"\n{report.diagnosis(answer)}")
    if scene.pipe is not None or scene.source:
        say("memplan: looking for the cheapest plan that fits …")
    answer = with_plan(answer, scene)
    say(report.advice(answer))
    if json is not None:
        _write(Path(json), report.as_json(answer))
    return True


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        say(f"memplan: the answer could not be written to {file}: {error.strerror or error}")


def say(text: str) -> None:
    """One line or more on stderr, where there is one."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)
