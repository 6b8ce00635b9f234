"""Makes one real call, and holds what it took against what was predicted for it."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from memplan.errors import BadInput
from memplan.faces.api import HERE, Progress, Target
from memplan.faces.history import database
from memplan.faces.history.record import Record
from memplan.faces.oom.frames import is_pipeline
from memplan.planner import Plan
from memplan.strategy import Strategy


def verify(
    pipe: Any,
    plan: Plan | str | Sequence[str | Strategy] | None = None,
    *,
    target: Target = HERE,
    device: str = "cuda",
    record: bool = True,
    force: bool = False,
    progress: Progress | None = None,
    **call: Any,
) -> Record:
    """Call a live pipeline once, and return what each phase took beside its prediction; printed, it is a table.

    It is called as it is, under what is applied to it; or under `plan`, which is applied on `device` before and undone
    after, with `force` though it does not fit. `call` are the arguments of the pipeline itself, and its pictures are
    let go of. On CUDA and XPU the peaks of allocated and reserved memory are torch's own, which are reset at the
    borders of phases; elsewhere only seconds and the process's host memory are measured, and nothing is compared. A
    first call starts the device, so that its seconds are above those of a warm one, which is what is predicted. With
    `record` the run is kept on this machine.

    Raises what auto_optimize() raises, and what the call raises.
    """
    from memplan.faces.history.measuring import Measuring, given
    from memplan.faces.live import auto_optimize

    if not is_pipeline(pipe):
        raise BadInput(f"verify() calls a pipeline of diffusers, and a {type(pipe).__name__} is none")
    if force and plan is None:
        raise BadInput("force=True is for a plan that does not fit, and none is given: the pipeline is called as it is")
    planned = given(pipe, (), call)
    under = (
        nullcontext()
        if plan is None
        else auto_optimize(pipe, plan, target=target, device=device, progress=progress, force=force, **planned)
    )
    with under:
        if progress:
            progress("calling the pipeline")
        measuring = Measuring(pipe, planned, target, clean=True)
        try:
            pipe(**call)
        finally:
            measuring.stop()
        if progress and plan is None:
            progress("predicting what it takes")
        found = measuring.record()
    if record:
        database.save(found)
    return found
