"""Looks for a smaller call that fits where nothing fits the one that was asked for."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from memplan.errors import BadInput
from memplan.faces.api import HERE, Progress, Target, facts
from memplan.facts import Facts, Trace
from memplan.planner import Plan, Recommendation, seated

Change = dict[str, Any]
"""Arguments of a call that make it smaller."""
STEP = 32
"""Pixels by which sides are rounded: few pipelines want multiples of more."""


@dataclass(frozen=True)
class Nearest:
    """What was tried, and of it the least change that fits, with its plan; none where none does.

    Nothing is tried where `weights` alone are too much, for they are the same in every call.
    """

    tried: tuple[Change, ...] = ()
    change: Change | None = None
    plan: Plan | None = None
    weights: bool = False


def nearest_call(
    source: Any,
    found: Recommendation,
    *,
    target: Target = HERE,
    dtype: str | None = None,
    variant: str = "",
    cache: bool = True,
    progress: Progress | None = None,
    **call: Any,
) -> Nearest:
    """The nearest smaller call that fits where `found` does not: fewer images, fewer frames, or fewer pixels.

    Where the seconds are too many, fewer steps come first. Of each kind the smallest is tried first: where it does
    not fit, the others of its kind do not. A try is a dry run, on which the plans of `found` are priced anew.
    """
    if not any(map(_may_shrink, found.front)):
        return Nearest(weights=True)
    tried, best = list[Change](), Nearest()
    reading: dict[str, Any] = {"target": target, "dtype": dtype, "variant": variant, "cache": cache}
    reading["progress"] = progress
    slow = any(short.of == "seconds" for short in found.nearest.shortages)
    for kind in smaller_calls(found.facts.trace, call, slow=slow):
        for change in reversed(kind):
            if progress:
                progress("trying a smaller call, " + ", ".join(f"{name}={value}" for name, value in change.items()))
            tried.append(change)
            try:
                smaller = facts(source, call | change, **reading)
            except BadInput:  # a size that the pipeline refuses
                continue
            plan = min(_fitting(found, smaller), key=lambda plan: plan.effort, default=None)
            if plan is None:
                break
            best = Nearest(change=change, plan=plan)
        if best.plan:
            break
    return replace(best, tried=tuple(tried))


def _may_shrink(plan: Plan) -> bool:
    """Whether a plan could fit if its activations were nothing."""
    weights = max(peak.weights for peak in plan.bill.peaks)
    return weights <= plan.run.facts.machine.vram and plan.host_margin >= 0


def _fitting(found: Recommendation, smaller: Facts) -> Iterator[Plan]:
    """The plans of `found` that fit on other facts."""
    for plan in found.front:
        with suppress(BadInput):  # what changes nothing in so small a call is refused
            again = seated(smaller, plan.strategies)
            if again.fits:
                yield again


def smaller_calls(trace: Trace, call: Mapping[str, Any], *, slow: bool = False) -> list[list[Change]]:
    """Changes of a call that make it smaller, by kind: images, frames, pixels. In each the least change comes first.

    One that is too `slow` may have fewer steps too, which come before the others.
    """
    known = {**dict(trace.arguments), **call}
    names = ("num_inference_steps", "num_images_per_prompt", "num_frames", "height", "width")
    steps, images, frames, height, width = (_number(known.get(name)) for name in names)
    sooner = [steps * part // 4 for part in (3, 2, 1)] if steps and slow else []
    fewer = [(frames * part // 4 - 1) // 4 * 4 + 1 for part in (3, 2, 1)] if frames else []
    sizes = ((_part(height or 0, eighths), _part(width or 0, eighths)) for eighths in (6, 4, 3))
    kinds: list[list[Change]] = [
        [{"num_inference_steps": number} for number in dict.fromkeys(sooner) if number > 0],
        [{"num_images_per_prompt": 1}] if images and images > 1 else [],
        [{"num_frames": number} for number in dict.fromkeys(fewer) if number > 0],
        [{"height": high, "width": wide} for high, wide in dict.fromkeys(sizes) if high and wide],
    ]
    return [kind for kind in kinds if kind]


def _part(pixels: int, eighths: int) -> int:
    """So many eighths of a side, in steps that pipelines take."""
    return pixels * eighths // 8 // STEP * STEP


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdigit()) else None
