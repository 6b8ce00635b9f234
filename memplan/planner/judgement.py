"""Which plans are worth showing, and which four are picked."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import log
from operator import le

from memplan.facts import MIB, Facts
from memplan.facts.units import amount
from memplan.planner.plan import PREFERENCES, Dropped, Plan, Recommendation
from memplan.run import Resident, Run
from memplan.strategy import Strategy

COMFORT = 0.8
"""The share of the device memory that a balanced plan may take, so that other work does not push it over."""
SAFETY = 0.02
"""The share of device and host memory that a pick leaves free where it can: predictions err by about one percent."""
COARSE, FINE = 256 * MIB, 4 * MIB
"""Differences of memory below a grain do not make a plan better than another: at most COARSE, a 64th of the device
memory on small cards, and FINE where a coarser search finds nothing that fits."""
NEGLIGIBLE = 0.05
"""The share by which a pick may miss the least memory or effort for the sake of precision."""
INSTANT = 1e-6
"""Seconds below which no plan is faster than another."""
MISFIT = 2
"""The rank of a plan that does not fit."""


def judge(facts: Facts, plans: Sequence[Plan], dropped: Sequence[Dropped] = (), grain: int = FINE) -> Recommendation:
    """The front of `plans` and the picks from it; differences of memory below `grain` bytes do not count."""
    front = sorted(undominated(plans, partial(price_of, scale=Scale(grain))), key=_speed)
    best = min(map(_rank, front), default=MISFIT)
    picks = tuple((name, _pick(name, [p for p in front if _rank(p) == best])) for name in PREFERENCES)
    if best == MISFIT:
        front.sort(key=lambda p: p.nearness, reverse=True)
    return Recommendation(facts, tuple(front), picks if best < MISFIT else (), tuple(dropped))


def _rank(plan: Plan) -> int:
    """0 fits with something to spare, 1 fits, 2 does not fit."""
    if not plan.fits:
        return MISFIT
    machine = plan.run.facts.machine
    return 0 if plan.margin >= SAFETY * machine.vram and plan.host_margin >= SAFETY * machine.ram else 1


def _speed(plan: Plan) -> tuple[float, ...]:
    return plan.effort, *_loss(plan), plan.bill.peak.memory.required


@dataclass(frozen=True)
class Scale:
    """How much less of something counts as less: bytes of memory, a share of the seconds, an error of weights."""

    memory: int
    effort: float = 0.05
    loss: float = 0.002

    def times(self, factor: int) -> "Scale":
        """Differences so many times as large."""
        return Scale(factor * self.memory, factor * self.effort, factor * self.loss)


def price_of(plan: Plan, scale: Scale) -> tuple[float, ...]:
    """What the front weighs, in units of its scale: device and host memory, seconds, loss, tiles, other calls and fit.

    Tiles and how well a plan fits count double, so that a small difference of memory matters where they differ.
    """
    return *_weighed(plan, scale), 2 * _rank(plan)


def share_of(plan: Plan, scale: Scale) -> tuple[float, ...]:
    """All that an option of one component adds to a plan: memory in each phase, and the rest of its price.

    What it pins is a part of that where pinning is limited.
    """
    host = plan.bill.host
    phases = tuple(peak.memory.required / scale.memory for peak in plan.bill.peaks)
    limited = plan.run.facts.machine.host.pinnable is not None
    return *phases, host.steady / scale.memory, host.pinned / FINE * limited, *_weighed(plan, scale)


def _weighed(plan: Plan, scale: Scale) -> tuple[float, ...]:
    """Device memory, host memory, seconds, loss, tiles and the number of other ways in which components are called."""
    bill = plan.bill
    return (
        bill.peak.memory.required / scale.memory,
        bill.host.peak / scale.memory,
        log(max(plan.effort, INSTANT)) / scale.effort,
        bill.loss.error / scale.loss,
        2 * bill.loss.tiles,
        sum(map(len, plan.run.variants.values())),
    )


def undominated(plans: Iterable[Plan], price: Callable[[Plan], tuple[float, ...]]) -> list[Plan]:
    """The plans that no other beats. A plan of more techniques must be better by a unit in some respect to count."""
    front: list[tuple[tuple[float, ...], Plan]] = []
    for plan in sorted(plans, key=_effect):
        own = price(plan)
        within = [figure + 1 for figure in own]
        if any(all(map(le, other, within)) for other, _ in front):
            continue
        front = [(other, kept) for other, kept in front if not all(map(le, own, other))]
        front.append((own, plan))
    return [plan for _, plan in front]


def _effect(plan: Plan) -> tuple[int, float]:
    """How many components a plan touches, and how hard: simpler plans come first."""
    touched = sum(
        len({seat.component for seat in s.seats}) for s in plan.strategies if not changes_nothing(s, plan.run.facts)
    )
    return touched, plan.effort


@lru_cache(maxsize=1024)
def changes_nothing(strategy: Strategy, facts: Facts) -> bool:
    """Whether a strategy leaves a run as it is by default."""
    drawn = strategy.redraw(Run(facts))
    return all(isinstance(p, Resident) for p in drawn.placements.values()) and not drawn.storage and not drawn.variants


def _pick(preference: str, fitting: Sequence[Plan]) -> Plan:
    """The pick among plans that fit, with its reason: of those about as good in what is preferred, the most precise."""
    comfortable = [plan for plan in fitting if _comfortable(plan)] or fitting
    pools = {
        "quality": fitting,
        "speed": _about_least(fitting, lambda p: p.effort),
        "memory": _about_least(fitting, lambda p: p.bill.peak.memory.required),
        "balanced": _about_least(comfortable, lambda p: p.effort),
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

    The least memory is not given away.
    """
    spent = preference != "quality" and other.effort > plan.effort * (1 + NEGLIGIBLE)
    tight = preference == "balanced" and _comfortable(plan) and not _comfortable(other)
    kept = preference != "memory" and _rank(other) <= _rank(plan) and not spent and not tight
    return kept and (_loss(other), other.bill.traffic.link) < (_loss(plan), plan.bill.traffic.link)


def _sought(preference: str, plan: Plan) -> tuple[float, ...]:
    figure = plan.bill.peak.memory.required if preference == "memory" else plan.effort
    return _rank(plan), *_loss(plan), figure, preference == "balanced" and not _comfortable(plan)


def _about_least(plans: Sequence[Plan], figure: Callable[[Plan], float]) -> list[Plan]:
    """The plans whose `figure` is the least, or not worth the difference."""
    least = min(map(figure, plans))
    return [plan for plan in plans if figure(plan) <= least * (1 + NEGLIGIBLE)]


def _loss(plan: Plan) -> tuple[bool, float, int]:
    loss = plan.bill.loss
    return loss.cached, loss.error, loss.tiles


def _comfortable(plan: Plan) -> bool:
    machine = plan.run.facts.machine
    return plan.bill.peak.memory.required <= COMFORT * machine.vram and plan.bill.host.peak <= COMFORT * machine.ram


def _reason(preference: str, plan: Plan) -> str:
    """Why this plan is the pick."""
    bill = plan.bill
    moved = f"{amount(bill.traffic.link)} cross the link per call" if bill.traffic.link else "nothing is copied"
    moved += f" and {bill.host_flops / 1e12:.1f} TFLOP are computed by the CPU" if bill.host_flops else ""
    used = f"{bill.peak.memory.required / max(plan.run.facts.machine.vram, 1):.0%} of the device memory"
    fits = "fits" if _rank(plan) else f"fits with {SAFETY:.0%} to spare"
    return {
        "quality": f"The least loss that {fits} ({bill.loss.word}), and of those the fastest: {moved}.",
        "speed": f"The most precise of about the fastest that {fits}: {moved}, {bill.loss.word}.",
        "memory": f"The most precise with about the smallest peak of all: {used}; {moved}.",
        "balanced": f"About the fastest within {COMFORT:.0%} of either memory: {used}; {moved}."
        if _comfortable(plan)
        else f"No plan stays within {COMFORT:.0%} of both memories; about the fastest: {used}; {moved}.",
    }[preference]
