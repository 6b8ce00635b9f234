"""Chooses which plans of a long front to show, and says what each is good for."""

from collections.abc import Sequence

from memplan.planner import Plan, Recommendation

NOTICEABLE = 0.01
"""The smallest difference worth a word, as a share of the larger figure."""


def others(found: Recommendation, limit: int | None = None) -> list[Plan]:
    """The front's plans beside the picks, in its order; with `limit` so many, of those that fit where some do.

    Of plans that fit, the choice is spread out: each next one is that which differs most from all chosen before it.
    Where nothing fits, it is those that miss the least.
    """
    picked = [plan.strategies for _, plan in found.picks]
    rest = [p for p in found.front if p.strategies not in picked]
    if limit is None:
        return rest
    if not picked:
        return rest[:limit]
    rest = [p for p in rest if p.fits]
    if len(rest) <= limit:
        return rest
    chosen = _spread([plan for _, plan in found.picks], rest, limit)
    return [plan for i, plan in enumerate(rest) if i in chosen]


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
    bill = plan.bill
    return bill.peak.memory.required, bill.host.peak, plan.effort, bill.loss.error


# ---- what a plan is good for -----------------------------------------------------------------------------------------
def why(plan: Plan, pick: Plan | None, name: str) -> str:
    """One sentence: the plan's own reason, or what it has less and more of than `pick`, which is called `name`."""
    if plan.reason or pick is None:
        return plan.reason
    pairs = [(a - b, max(a, b)) for a, b in zip(_figures(plan), _figures(pick), strict=True)]
    words = ("VRAM", "RAM", "traffic" if plan.bill.seconds is None else "time", "loss")
    less = [word for word, (change, of) in zip(words, pairs, strict=True) if change < -NOTICEABLE * of]
    more = [word for word, (change, of) in zip(words, pairs, strict=True) if change > NOTICEABLE * of]
    if not less:
        return f"More {_listed(more)} than {name}." if more else f"Much like {name}."
    price = f", for more {_listed(more)}" if more else ""
    return f"Less {_listed(less)} than {name}{price}."


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
