"""Calls a pipeline with the same seeds without a plan and with it, and compares what that takes and what comes out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from memplan.applier import check_free, one_way
from memplan.errors import BadInput
from memplan.faces.api import HERE, Progress, Target, listed, machine, named, numbered
from memplan.faces.compare import metrics
from memplan.faces.compare.comparison import Comparison, Pair
from memplan.faces.compare.metrics import Likeness, Lpips, likeness
from memplan.faces.compare.running import Caller, Outputs, alike, told
from memplan.faces.history.expected import words
from memplan.faces.history.measuring import device_of
from memplan.faces.live import NOT_DONE, facts_of, put
from memplan.faces.oom.frames import is_pipeline
from memplan.faces.room import standing
from memplan.facts import GIB, Facts
from memplan.planner import Plan, Saved
from memplan.registry import EVERYTHING
from memplan.strategy import Strategy

Named = Plan | Saved | str | Sequence[str | Strategy]
"""A plan in each of the ways in which people have one."""
CPU = "cpu"


def compare(
    pipe: Any,
    plan: Named,
    *,
    against: Named = EVERYTHING,
    seed: int = 0,
    seeds: int = 1,
    repeat: int = 1,
    target: Target = HERE,
    device: str = "cuda",
    check_undo: bool = False,
    lpips: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    **call: Any,
) -> Comparison:
    """Call a live pipeline under `against` and then under `plan`, with the same seeds, and compare; printed: a table.

    `against` is everything on the device unless it is another plan. Both are priced first, then applied on `device` one
    after the other, and undone. Under each the pipeline is called once for each of `seeds` seeds from `seed` on, and
    for the first one `repeat` times more: the first call is told apart from those after it. Noise comes from the CPU.
    On devices without peaks one more call counts allocations, unless `repeat` is 0. `call` are the arguments of the
    pipeline itself. With `check_undo` it is called once more at the end, to see whether undoing brought everything
    back; with `lpips` the weights that LPIPS needs are downloaded, which otherwise is given where they are there.

    A plan that cannot be applied, or fails in a call, is told in the Comparison, and the pipeline is as it was, but for
    what cannot be undone. Raises what auto_optimize() raises where a plan is refused or does not fit, what the call
    raises without the plan, BadInput for `against` that cannot be undone, and Unsupported without torchmetrics.
    """
    if not is_pipeline(pipe):
        raise BadInput(f"compare() calls a pipeline of diffusers, and a {type(pipe).__name__} is none")
    check(seeds, repeat, call)
    check_free(pipe)
    both = parts(against), parts(plan)
    place = rehearsed(numbered(target, device), device)
    measured = facts_of(pipe, call, [*both[0], *both[1]], target=place, device=device, progress=progress)
    caller = Caller(pipe, call, tuple(range(seed, seed + seeds)), repeat, progress or _silent)
    plans = ready(measured, both, place, force=force)
    return compared(caller, plans, device, predicted=place == target, check_undo=check_undo, lpips=lpips)


def check(seeds: int, repeat: int, call: dict[str, Any]) -> None:
    """Raises BadInput for counts that make no call and for a generator of the caller's, Unsupported without metrics."""
    if seeds < 1 or repeat < 0:
        raise BadInput(f"seeds is {seeds} and repeat {repeat}: give 1 seed or more, and 0 repeats or more")
    if "generator" in call:
        raise BadInput("generator is made anew for each call, so that both sides get the same noise: give seed instead")
    metrics.check()


def parts(plan: Any) -> Sequence[str | Strategy]:
    """The parts of a plan, also of one from a file. Raises BadInput as listed() does."""
    return listed(plan.plan if isinstance(plan, Saved) else plan)


def rehearsed(target: Target, device: str) -> Target:
    """The machine to plan for; a rehearsal on the CPU of a machine without a card has one of the size of the host."""
    if device != CPU or not target.is_here:
        return target
    here = machine(target)
    return target if here.gpu else replace(target, vram=here.host.total / GIB)


def ready(measured: Facts, both: tuple[Any, Any], target: Target, *, force: bool) -> tuple[Plan, Plan]:
    """Both plans, which fit. Raises NothingFits where one does not, BadInput where the first one cannot be undone."""
    baseline, plan = (standing(named(measured, one), target, undone=NOT_DONE, force=force) for one in both)
    stays = one_way(baseline.strategies)
    if stays:
        raise BadInput(f"the plan would be applied on top of what it is compared with: {stays[0]}. {NOT_DONE}")
    return baseline, plan


def compared(
    caller: Caller, plans: tuple[Plan, Plan], device: str, *, predicted: bool, check_undo: bool, lpips: bool
) -> Comparison:
    """Both sides, one after the other. Raises what goes wrong without the plan."""
    first, second = (caller.side(one, device, predicted=predicted) for one in plans)
    judge, why = metrics.find_lpips(download=lpips)
    with put(plans[0], caller.pipe, device):
        kind = device_of(caller.pipe).type
        first, before = caller.run(first)
    failures: list[str] = []
    after: Outputs = {}
    with told(failures), put(plans[1], caller.pipe, device):
        second, after = caller.run(second)
    second = replace(second, failed=failures[0]) if failures else second
    pairs = _paired(before, after)
    judged = _judged(pairs, judge, caller.say)
    compared = Comparison(
        type(caller.pipe).__name__,
        kind,
        words(caller.planned),
        first,
        second,
        judged,
        pairs,
        notes=(*metrics.without_lpips(judged, why), *one_way(plans[1].strategies)),
    )
    return replace(compared, undone=_undone(caller, plans, device, before)) if check_undo else compared


def _paired(before: Outputs, after: Outputs) -> tuple[Pair, ...]:
    """Each output without the plan beside the one with it, then those of the plan alone; none where it failed."""
    if not after:
        return ()
    first, second = ({(seed, v.place): v for seed, every in side.items() for v in every} for side in (before, after))
    return tuple(Pair(at[0], first.get(at), second.get(at)) for at in {**first, **second})


def _judged(pairs: Sequence[Pair], judge: Lpips | None, say: Callable[[str], None]) -> tuple[Likeness, ...]:
    say("comparing the outputs")
    return tuple(likeness(pair.seed, pair.before, pair.after, judge) for pair in pairs)


def _undone(caller: Caller, plans: tuple[Plan, Plan], device: str, before: Outputs) -> bool | None:
    """Whether the pipeline gives what it gave before the plan; None where something of that stays."""
    if one_way(plans[1].strategies):
        return None
    with put(plans[0], caller.pipe, device):
        return alike(before[caller.seeds[0]], caller.once(caller.seeds[0]))


def _silent(message: str) -> None:
    """Says nothing."""
