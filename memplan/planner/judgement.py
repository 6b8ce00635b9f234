"""Which plans are worth showing, and which four are picked."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from memplan.facts import Facts
from memplan.facts.units import amount, duration
from memplan.planner.plan import PREFERENCES, Dropped, Plan, Recommendation
from memplan.planner.weighing import COMFORT, FINE, MISFIT, SAFETY, comfortable, rank
from memplan.run import Resident, Run
from memplan.strategy import Strategy

NEGLIGIBLE = 0.05
"""The share by which a pick may miss the least memory or effort for the sake of precision."""


def judge(facts: Facts, plans: Sequence[Plan], dropped: Sequence[Dropped] = (), grain: int = FINE) -> Recommendation:
    """The front of `plans` and the picks from it; differences of memory below `grain` bytes do not count."""
    from memplan.planner.offers import Offers, Scale, price_of, unbeaten  # which import numpy: only a search needs it

    offers = Offers.of([p.strategies for p in plans], [touched(p.strategies, facts) for p in plans], plans)
    best_ones = unbeaten(offers, price_of, Scale(grain))
    front = sorted(filter(None, map(best_ones.plan, range(len(best_ones)))), key=_speed)
    best = min(map(rank, front), default=MISFIT)
    picks = tuple((name, _pick(name, [p for p in front if rank(p) == best])) for name in PREFERENCES)
    if best == MISFIT:
        front.sort(key=lambda p: p.nearness, reverse=True)
    return Recommendation(facts, tuple(front), picks if best < MISFIT else (), tuple(dropped))


def _speed(plan: Plan) -> tuple[float, ...]:
    return plan.effort, *_loss(plan), plan.bill.peak.memory.required


def touched(strategies: Iterable[Strategy], facts: Facts) -> int:
    """How many components strategies change: simpler plans come first."""
    return sum(len({seat.component for seat in s.seats}) for s in strategies if not changes_nothing(s, facts))


@lru_cache(maxsize=1024)
def changes_nothing(strategy: Strategy, facts: Facts) -> bool:
    """Whether a strategy leaves a run as it is by default."""
    drawn, default = strategy.redraw(Run(facts)), Run(facts)
    resident = all(isinstance(placement, Resident) for placement in drawn.placements.values())
    return resident and replace(drawn, placements=default.placements) == default


def _pick(preference: str, fitting: Sequence[Plan]) -> Plan:
    """The pick among plans that fit, with its reason: of those about as good in what is preferred, the most precise."""
    easy = [plan for plan in fitting if _comfortable(plan)] or fitting
    pools = {
        "quality": fitting,
        "speed": _about_least(fitting, lambda p: p.effort),
        "memory": _about_least(fitting, lambda p: p.bill.peak.memory.required),
        "balanced": _about_least(easy, lambda p: p.effort),
    }
    plan = min(pools[preference], key=lambda p: (*_loss(p), p.effort, len(p.strategies)))
    return reasoned(preference, plan)


def reasoned(preference: str, plan: Plan) -> Plan:
    """The same plan, with the reason for which it is the pick of `preference`."""
    return replace(plan, reason=_reason(preference, plan))


def no_worse(preference: str, less: Plan, plan: Plan) -> bool:
    """Whether `less` is as good as `plan` in all that `preference` weighs, however small the difference."""
    return all(a <= b for a, b in zip(_sought(preference, less), _sought(preference, plan), strict=True))


def improves(preference: str, other: Plan, plan: Plan) -> bool:
    """Whether `other` loses less than `plan`, or moves less at the same loss, and is as good for `preference`.

    The least memory is not given away, and of plans that lose as little the fastest is not for one that moves less.
    """
    slower = other.effort > plan.effort * (1 if preference == "quality" else 1 + NEGLIGIBLE)
    spent = slower and (preference != "quality" or _loss(other) == _loss(plan))
    tight = preference == "balanced" and _comfortable(plan) and not _comfortable(other)
    kept = preference != "memory" and rank(other) <= rank(plan) and not spent and not tight
    return kept and (_loss(other), other.bill.traffic.link) < (_loss(plan), plan.bill.traffic.link)


def _sought(preference: str, plan: Plan) -> tuple[float, ...]:
    figure = plan.bill.peak.memory.required if preference == "memory" else plan.effort
    return rank(plan), *_loss(plan), figure, preference == "balanced" and not _comfortable(plan)


def _about_least(plans: Sequence[Plan], figure: Callable[[Plan], float]) -> list[Plan]:
    """The plans whose `figure` is the least, or not worth the difference."""
    least = min(map(figure, plans))
    return [plan for plan in plans if figure(plan) <= least * (1 + NEGLIGIBLE)]


def _loss(plan: Plan) -> tuple[bool, float, int]:
    loss = plan.bill.loss
    return loss.cached, loss.error, loss.tiles


def _comfortable(plan: Plan) -> bool:
    return comfortable(plan.bill.peak.memory.required, plan.bill.host.peak, plan.run.facts.machine)


def _reason(preference: str, plan: Plan) -> str:
    """Why this plan is the pick."""
    bill = plan.bill
    moved = f"{amount(bill.traffic.link)} cross the link per call" if bill.traffic.link else "nothing is copied"
    moved = f"{duration(bill.seconds)} a step" if plan.run.facts.training else moved
    moved = f"{duration(bill.seconds)} with its backward" if plan.run.facts.differentiable else moved
    moved += f" and {bill.host_flops / 1e12:.1f} TFLOP are computed by the CPU" if bill.host_flops else ""
    used = f"{bill.peak.memory.required / max(plan.run.facts.machine.vram, 1):.0%} of the device memory"
    fits = "fits" if rank(plan) else f"fits with {SAFETY:.0%} to spare"
    return {
        "quality": f"The least loss that {fits} ({bill.loss.word}), and of those the fastest: {moved}.",
        "speed": f"The most precise of about the fastest that {fits}: {moved}, {bill.loss.word}.",
        "memory": f"The most precise with about the smallest peak of all: {used}; {moved}.",
        "balanced": f"About the fastest within {COMFORT:.0%} of either memory: {used}; {moved}."
        if _comfortable(plan)
        else f"No plan stays within {COMFORT:.0%} of both memories; about the fastest: {used}; {moved}.",
    }[preference]
