"""What else a run that is under way can do for less memory, one technique at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from memplan.errors import BadInput
from memplan.facts import Facts
from memplan.planner.plan import Plan
from memplan.planner.seating import draw
from memplan.strategy import Decision, Strategy, in_order

Place = tuple[str, str]
"""A phase, and the component that runs in it; "" is the pipeline's own code."""


@dataclass(frozen=True)
class Further:
    """A technique to add, the plan that it makes of those before it, and bytes at the place that ran out of memory."""

    strategy: Strategy
    plan: Plan
    before: int
    after: int


def further(
    facts: Facts, taken: Sequence[Strategy], at: Place, least: int, catalogue: Sequence[type[Strategy]]
) -> list[Further]:
    """The techniques that take strictly less memory at a place than those already `taken`, the best first.

    `least` are the bytes by which the run fell short, more of them where it was predicted not to fit by more: those
    that save as much come first, in the order of what they
    lose and then of the time they take; the others follow, the one that saves the most first. Only what can be applied
    midway is looked at, and what host memory suffices for.
    """
    was, found = required(draw(facts, taken), at), list[Further]()
    least = max(least, was - facts.machine.vram)
    for strategy in (one for kind in catalogue if kind.midway for one in kind.variants(facts)):
        plan = _added(facts, taken, strategy)
        if plan is None or min(plan.host_margin, plan.pin_margin) < 0:
            continue
        now = required(plan, at)
        if now < was:
            found.append(Further(strategy, plan, was, now))
    return sorted(found, key=lambda f: (f.before - f.after < least, *_order(f, least)))


def required(plan: Plan, at: Place) -> int:
    """Bytes that a plan needs at a place; where the call never was there, those of its highest moment."""
    peaks = plan.bill.peaks
    here = [p for p in peaks if (p.phase, p.component) == at] or [p for p in peaks if p.component == at[1]]
    return max((peak.memory.required for peak in here), default=plan.bill.peak.memory.required)


def _order(found: Further, least: int) -> tuple[float, ...]:
    loss = found.plan.bill.loss
    if found.before - found.after < least:
        return found.after, loss.error, loss.tiles, found.plan.effort
    return loss.error, loss.tiles, found.plan.effort, found.after


def _added(facts: Facts, taken: Sequence[Strategy], strategy: Strategy) -> Plan | None:
    """The plan with `strategy` beside those taken, or in the place of larger tiles; None where it cannot join them."""
    kept = [other for other in taken if not _finer(strategy, other)]
    if strategy in taken or strategy.refuses(draw(facts, kept).run):
        return None
    try:
        return draw(facts, in_order([*kept, strategy]))
    except BadInput:
        return None


def _finer(strategy: Strategy, other: Strategy) -> bool:
    """Whether one takes the seat of the other by setting the same tiles to another size."""
    return other.seats == strategy.seats and all(seat.decision is Decision.TILES for seat in other.seats)


def placements(strategies: Sequence[Strategy]) -> Iterator[Strategy]:
    """Those that decide where components live, which a dry run of a pipeline that carries them leaves behind."""
    return (s for s in strategies if any(seat.decision is Decision.PLACEMENT for seat in s.seats))
