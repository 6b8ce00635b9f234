"""Strategies take their seats in one run, which is priced; or one of them refuses."""

from collections.abc import Iterable, Sequence

from memplan.errors import BadInput
from memplan.facts import Facts
from memplan.planner.plan import Dropped, Plan
from memplan.run import Run
from memplan.simulator import simulate
from memplan.strategy import Strategy, in_order


def draw(facts: Facts, strategies: Iterable[Strategy]) -> Plan:
    """The plan of exactly these strategies, refusals ignored."""
    run, chosen = Run(facts), tuple(strategies)
    for strategy in chosen:
        run = strategy.redraw(run)
    return Plan(chosen, run, simulate(run))


def seated(facts: Facts, strategies: Sequence[Strategy]) -> Plan:
    """The plan of these strategies. Raises BadInput when two want one seat, or one refuses to join the others."""
    plan = seat(facts, strategies)
    if isinstance(plan, Dropped):
        raise BadInput(f"{plan.what} cannot be: {plan.reason}")
    return plan


def seat(facts: Facts, strategies: Iterable[Strategy]) -> Plan | Dropped:
    """The plan of these strategies, or the first refusal among them. Raises BadInput where two want one seat."""
    run, chosen = Run(facts), in_order(strategies)
    for strategy in chosen:
        refusal = refused(strategy, run)
        if refusal:
            return Dropped(words(chosen), refusal)
        run = strategy.redraw(run)
    return Plan(chosen, run, simulate(run))


def refused(strategy: Strategy, run: Run) -> str | None:
    """Why `strategy` cannot join `run`, in a sentence: it is for another purpose, or its own words."""
    return strategy.misplaced(run.facts) or strategy.refuses(run)


def filled(chosen: list[Strategy], idle: Sequence[Strategy]) -> list[Strategy]:
    """`chosen`, and on the seats they leave free what is `idle`."""
    for strategy in idle:
        if not any(strategy.seats & other.seats for other in chosen):
            chosen.append(strategy)
    return chosen


def words(strategies: Iterable[Strategy]) -> str:
    """Strategies as a report of what was dropped names them."""
    return " + ".join(str(s) for s in strategies) or "nothing"


def components(strategy: Strategy) -> frozenset[str]:
    """The components that it decides something of."""
    return frozenset(seat.component for seat in strategy.seats)
