"""Spends the memory that a pick leaves: some of a component stays in a better format, or more of it on the device."""

from collections.abc import Callable, Sequence

from memplan.planner.judgement import improves, reasoned
from memplan.planner.plan import Dropped, Plan
from memplan.strategy import Strategy

Seating = Callable[[Sequence[Strategy]], Plan | Dropped]
"""The plan of some strategies, or the refusal among them."""


def refined(preference: str, plan: Plan, seat: Seating) -> Plan:
    """The pick with each technique as fine as still does, those of the largest components first.

    Finer settings are tried by bisection, so that a pick costs a few bills and not one for each.
    """
    finest = plan
    for strategy in sorted(plan.strategies, key=lambda s: -_size(plan, s)):
        finest = _finest(preference, finest, strategy, seat)
    return finest if finest is plan else reasoned(preference, finest)


def _finest(preference: str, plan: Plan, strategy: Strategy, seat: Seating) -> Plan:
    """The plan with the finest of the settings of `strategy` that make it better."""
    finer = strategy.finer(plan.run.facts)
    best, least, most = plan, 0, len(finer)
    while least < most:
        middle = (least + most + 1) // 2
        other = seat([finer[middle - 1] if s is strategy else s for s in plan.strategies])
        if isinstance(other, Plan) and improves(preference, other, plan):
            best, least = other, middle
        else:
            most = middle - 1
    return best


def _size(plan: Plan, strategy: Strategy) -> int:
    model = plan.run.facts.model
    return max(model.component(seat.component).size for seat in strategy.seats)
