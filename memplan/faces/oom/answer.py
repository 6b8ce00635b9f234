"""The answer to an error: plain facts, without a tensor or a frame of the run that failed."""

import traceback
from dataclasses import dataclass, field, replace
from typing import Any

from memplan.errors import MemplanError, NoGpu
from memplan.faces.api import placed
from memplan.faces.oom.held import Held, held
from memplan.faces.oom.planning import PATIENCE, TookTooLong, fitting
from memplan.faces.oom.scene import Scene, scene
from memplan.faces.report.code import in_memory, script
from memplan.oom import Allocation
from memplan.oom.place import Place
from memplan.planner import Plan
from memplan.strategy import in_order


@dataclass(frozen=True)
class Answer:
    """What ran out where, what was held, and the plan that would have fitted, or why there is none.

    `error` is the error's class and text, `pipeline` the class of the pipeline at work. `call` are the arguments of
    its call as people read them; `source` is where the pipeline can be loaded from, "" where it is not known, and
    `device` the device that it ran on. `predicted` are the bytes that memplan predicts for the run that failed, where
    by that it would have fitted: its plan then takes less than those. `code` is what to type, the `whole` script where
    the source is known, else the lines that change the pipeline.
    """

    error: str
    failed: Allocation
    place: Place = field(default_factory=Place)
    pipeline: str = ""
    source: str = ""
    call: tuple[tuple[str, str], ...] = ()
    held: Held = field(default_factory=Held)
    plan: Plan | None = None
    predicted: int | None = None
    why_none: str = ""
    code: str = ""
    whole: bool = False


def diagnosis(error: BaseException, failed: Allocation, pipe: Any = None) -> tuple[Answer, Scene]:
    """The answer without a plan, and the live scene that a plan is made for."""
    at = scene(error, pipe)
    pipe = at.pipe
    text = "".join(traceback.format_exception_only(error)).strip()
    return Answer(
        text,
        failed,
        at.place,
        type(pipe).__name__ if pipe is not None else "",
        at.source or str(getattr(pipe, "name_or_path", "") or ""),
        _shown(at.call),
        held(failed, at.pipes),
    ), at


def with_plan(answer: Answer, at: Scene, patience: float = PATIENCE) -> Answer:
    """The same answer with the cheapest plan that would have fitted, or with the reason why there is none."""
    if at.pipe is None and not at.source:
        return replace(answer, why_none="no pipeline of diffusers was found")
    from memplan.faces.quiet import libraries_quiet

    try:
        with libraries_quiet():
            found = fitting(at, answer.failed, patience)
    except KeyboardInterrupt:
        return replace(answer, why_none="planning was interrupted")
    except NoGpu as error:
        return replace(answer, why_none=error.why)
    except (MemplanError, TookTooLong) as error:
        return replace(answer, why_none=str(error))
    except Exception as error:  # a dry run runs the pipeline's own code: it may fail in any way
        return replace(answer, why_none=f"planning failed with {type(error).__name__}: {error}")
    whole = bool(answer.source)
    code = script(found.plan, answer.source, at.call) if whole else in_memory(found.plan, in_order(placed(found.plan)))
    return replace(answer, plan=found.plan, predicted=found.failed, code=code, whole=whole)


def _shown(call: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    if not call:
        return ()
    from memplan.probes.trace import show

    return tuple((name, show(value)) for name, value in call.items())
