"""Which plans are worth showing, and which four are picked."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import log1p

from memplan.facts import GIB, MIB, Facts
from memplan.planner.plan import Dropped, Plan, Recommendation
from memplan.run import Resident, Run
from memplan.strategy import Strategy

COMFORT = 0.8
"""The share of the device memory that a balanced plan may take, so that other work does not push it over."""
SAFETY = 0.02
"""The share of device and host memory that a pick leaves free where it can: predictions err by about one percent."""
COARSE, FINE = 256 * MIB, 4 * MIB
"""Differences of memory below a grain do not make a plan better than another: at most COARSE, a 64th of the device
memory on small cards, and FINE where a coarser search finds nothing that fits."""
MISFIT = 2
"""The rank of a plan that does not fit."""
PREFERENCES = ("quality", "speed", "memory", "balanced")


def judge(facts: Facts, plans: Sequence[Plan], dropped: Sequence[Dropped] = (), grain: int = FINE) -> Recommendation:
    """The front of `plans` and the picks from it; differences of memory below `grain` bytes do not count."""
    front = sorted(undominated(plans, partial(price_of, scale=Scale(grain))), key=_speed)
    best = min(map(_rank, front), default=MISFIT)
    picks = tuple((name, _pick(name, [p for p in front if _rank(p) == best])) for name in PREFERENCES)
    if best == MISFIT:
        front.sort(key=lambda p: -min(p.margin, p.host_margin))
    return Recommendation(facts, tuple(front), picks if best < MISFIT else (), tuple(dropped))


def _rank(plan: Plan) -> int:
    """0 fits with something to spare, 1 fits, 2 does not fit."""
    machine = plan.run.facts.machine
    spare = plan.margin >= SAFETY * machine.vram and plan.host_margin >= SAFETY * machine.ram
    return 0 if spare else 1 if plan.fits else MISFIT


def _speed(plan: Plan) -> tuple[float, float, int]:
    return plan.effort, plan.bill.loss.error, plan.bill.peak.memory.required


@dataclass(frozen=True)
class Scale:
    """How much less of something counts as less: bytes of memory, a share of the effort, an error of weights."""

    memory: int
    effort: float = 0.05
    loss: float = 0.002


def price_of(plan: Plan, scale: Scale) -> tuple[float, ...]:
    """What the front weighs, each in units of its scale: device memory, host memory, effort, loss, other calls and fit.

    Calls made another way, such as in tiles, take time and change the picture a little; no figure of the bill shows it.
    How well a plan fits counts double, so that a small difference of memory matters where it decides that.
    """
    bill = plan.bill
    memory = (bill.peak.memory.required / scale.memory, bill.host.peak / scale.memory)
    return (
        *memory,
        log1p(plan.effort) / scale.effort,
        bill.loss.error / scale.loss,
        len(plan.run.variants),
        2 * _rank(plan),
    )


def share_of(plan: Plan, scale: Scale) -> tuple[float, ...]:
    """All that an option of one component adds to a plan: memory in each phase, and the rest of its price."""
    phases = tuple(peak.memory.required / scale.memory for peak in plan.bill.peaks)
    return (*phases, plan.bill.host.steady / scale.memory, *price_of(plan, scale))


def undominated(plans: Iterable[Plan], price: Callable[[Plan], tuple[float, ...]]) -> list[Plan]:
    """The plans that no other beats. A plan of more techniques must be better by a unit in some respect to count."""
    front: list[tuple[tuple[float, ...], Plan]] = []
    for plan in sorted(plans, key=_effect):
        own = price(plan)
        if any(all(a <= b + 1 for a, b in zip(other, own, strict=True)) for other, _ in front):
            continue
        front = [(o, p) for o, p in front if not all(a <= b for a, b in zip(own, o, strict=True))]
        front.append((own, plan))
    return [plan for _, plan in front]


def _effect(plan: Plan) -> tuple[int, float]:
    """How many components a plan touches, and how hard: simpler plans come first."""
    touched = sum(len({seat.component for seat in s.seats}) for s in plan.strategies if not _leaves(plan, s))
    return touched, plan.effort


def _leaves(plan: Plan, strategy: Strategy) -> bool:
    """Whether a strategy leaves the run as it is by default."""
    run = Run(plan.run.facts)
    drawn = strategy.redraw(run)
    return all(isinstance(p, Resident) for p in drawn.placements.values()) and not drawn.storage and not drawn.variants


def _pick(preference: str, fitting: Sequence[Plan]) -> Plan:
    """The pick among plans that fit, with its reason."""
    keys: dict[str, Callable[[Plan], tuple[float, ...]]] = {
        "quality": lambda p: (p.bill.loss.error, p.effort, len(p.strategies)),
        "speed": lambda p: (p.effort, p.bill.loss.error, len(p.strategies)),
        "memory": lambda p: (p.bill.peak.memory.required, p.bill.loss.error, p.effort),
        "balanced": lambda p: (not _comfortable(p), p.effort, p.bill.loss.error, len(p.strategies)),
    }
    plan = min(fitting, key=keys[preference])
    return replace(plan, reason=_reason(preference, plan))


def _comfortable(plan: Plan) -> bool:
    return plan.bill.peak.memory.required <= COMFORT * plan.run.facts.machine.vram


def _reason(preference: str, plan: Plan) -> str:
    """Why this plan is the pick."""
    bill = plan.bill
    moved = f"{bill.traffic.link / GIB:.1f} GiB cross the link per call" if bill.traffic.link else "nothing is copied"
    used = f"{100 * bill.peak.memory.required / max(plan.run.facts.machine.vram, 1):.0f} % of the device memory"
    fits = "fits" if _rank(plan) else f"fits with {SAFETY:.0%} to spare"
    return {
        "quality": f"The least loss that {fits} ({bill.loss.word}), and of those the fastest: {moved}.",
        "speed": f"The least copying and casting that {fits}: {moved}, precision {bill.loss.word}.",
        "memory": f"The smallest peak of all plans that fit: {used}; {moved}.",
        "balanced": f"The least copying and casting within {COMFORT:.0%} of the device memory: {used}; {moved}."
        if _comfortable(plan)
        else f"No plan stays within {COMFORT:.0%} of the device memory; the fastest that fits: {used}; {moved}.",
    }[preference]
