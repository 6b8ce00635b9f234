"""Chooses which plans of a long front to show, and says what each is good for."""

from collections.abc import Sequence
from operator import le

from memplan.facts import LOSSES
from memplan.planner import Plan, Recommendation
from memplan.planner.label import techniques

NOTICEABLE = 0.01
"""The smallest difference worth a word, as a share of the larger figure."""


def others(found: Recommendation, limit: int | None = None) -> list[Plan]:
    """The plans beside the picks: the fastest first, or where nothing fits those that miss the least.

    With `limit` so many of the `distinct` ones, spread out: each next one chosen is that which differs most from all
    chosen before it.
    """
    picks = [plan for _, plan in found.picks]
    picked = [plan.strategies for plan in picks]
    rest = [p for p in found.front if p.strategies not in picked]
    if picks:
        rest.sort(key=_speed)
    if limit is None:
        return rest
    rest = distinct(found)
    if not picks:
        return rest[:limit]
    chosen = _spread(picks, rest, limit) if len(rest) > limit else set(range(len(rest)))
    return [plan for i, plan in enumerate(rest) if i in chosen]


def fitting(found: Recommendation) -> list[Plan]:
    """The plans beside the picks that fit; where nothing does, all."""
    return [p for p in others(found) if p.fits or not found.picks]


def distinct(found: Recommendation) -> list[Plan]:
    """Of those that fit, the ones that differ noticeably from every plan of fewer techniques in some figure.

    Those that another one, or a pick, is ahead of or equal to in all that a table shows of them are left out too.
    """
    known = [plan for _, plan in found.picks]
    rest = _unbeaten(known, fitting(found)) if known else fitting(found)
    for plan in sorted(rest, key=_techniques):
        if not any(_techniques(k) < _techniques(plan) and not any(_changes(plan, k)) for k in known):
            known.append(plan)
    return [plan for plan in rest if plan in known]


def _unbeaten(picks: Sequence[Plan], plans: Sequence[Plan]) -> list[Plan]:
    """The plans without those that a pick or another plan is ahead of, or equal to, in each figure as it is shown."""
    figures, ahead, kept = [_shown(plan) for plan in plans], [_shown(pick) for pick in picks], set[int]()
    for number in sorted(range(len(plans)), key=figures.__getitem__):
        if not any(all(map(le, other, figures[number])) for other in ahead):
            kept.add(number)
            ahead.append(figures[number])
    return [plan for number, plan in enumerate(plans) if number in kept]


def _shown(plan: Plan) -> tuple[float, ...]:
    """The figures of a table's row; losses of one word are alike there."""
    bill = plan.bill
    return bill.seconds, LOSSES.index(bill.loss.word), bill.peak.memory.required, bill.host.peak, bill.host_flops


def _techniques(plan: Plan) -> int:
    return len(techniques(plan.strategies))


def _spread(shown: Sequence[Plan], rest: Sequence[Plan], limit: int) -> set[int]:
    """Positions in `rest` of the plans farthest from one another and from `shown`."""
    every = [_figures(p) for p in (*shown, *rest)]
    scales = [max(column) - min(column) or 1.0 for column in zip(*every, strict=True)]
    points = [tuple(value / scale for value, scale in zip(row, scales, strict=True)) for row in every]
    spots, far = points[len(shown) :], [_distance(p, points[: len(shown)]) for p in points[len(shown) :]]
    chosen: set[int] = set()
    for _ in range(limit):
        best = max(range(len(spots)), key=lambda i: (far[i], -i))
        chosen.add(best)
        far = [min(known, _distance(spot, [spots[best]])) for known, spot in zip(far, spots, strict=True)]
        far = [-1.0 if i in chosen else distance for i, distance in enumerate(far)]
    return chosen


def _distance(point: Sequence[float], others: Sequence[Sequence[float]]) -> float:
    return min(sum(abs(a - b) for a, b in zip(point, other, strict=True)) for other in others)


def _figures(plan: Plan) -> tuple[float, ...]:
    """What people read of a plan: device memory, host memory, time, loss, what the CPU computes."""
    bill = plan.bill
    return bill.peak.memory.required, bill.host.peak, bill.seconds, bill.loss.error, bill.loss.tiles, bill.host_flops


def _speed(plan: Plan) -> tuple[float, ...]:
    vram, ram, time, *loss, computed = _figures(plan)
    return computed, time, *loss, vram, ram


# ---- what a plan is good for -----------------------------------------------------------------------------------------
def why(plan: Plan, pick: Plan | None, name: str) -> str:
    """One sentence: the plan's own reason, or what it has less and more of than `pick`, which is called `name`."""
    if plan.reason or pick is None:
        return plan.reason
    words = ("VRAM", "RAM", "time", "loss", "tiling", "work on the CPU")
    changes = list(zip(words, _changes(plan, pick), strict=True))
    less, more = ([word for word, change in changes if change * sign > 0] for sign in (-1, 1))
    if not less:
        return f"More {_listed(more)} than {name}." if more else f"Much like {name}."
    price = f", for more {_listed(more)}" if more else ""
    return f"Less {_listed(less)} than {name}{price}."


def _changes(plan: Plan, other: Plan) -> list[float]:
    """By how much each figure of `plan` is above that of `other`, as a share of the larger; 0 where not noticeable."""
    pairs = zip(_figures(plan), _figures(other), strict=True)
    shares = ((a - b) / max(a, b) if a != b else 0.0 for a, b in pairs)
    return [share if abs(share) > NOTICEABLE else 0.0 for share in shares]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
