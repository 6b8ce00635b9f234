"""Seats times variants: every combination that can matter, priced."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import product

from memplan.errors import BadInput
from memplan.facts import Facts
from memplan.planner.judgement import COARSE, FINE, Scale, judge, share_of, undominated
from memplan.planner.plan import Dropped, Plan, Recommendation
from memplan.run import Run
from memplan.simulator import simulate
from memplan.strategy import Decision, Seat, Strategy


def recommend(facts: Facts, catalogue: Sequence[type[Strategy]]) -> Recommendation:
    """Weigh every combination of the catalogue's variants for these facts."""
    coarse = max(min(COARSE, facts.machine.vram // 64), FINE)
    found = _search(facts, catalogue, coarse)
    return found if found.picks or coarse == FINE else _search(facts, catalogue, FINE)


def _search(facts: Facts, catalogue: Sequence[type[Strategy]], grain: int) -> Recommendation:
    dropped: list[Dropped] = []
    variants = list(_willing(facts, catalogue, dropped))
    plans: list[Plan] = []
    for shared in ((), *((s,) for s in variants if _components(s) > 1)):
        plans += _combinations(facts, variants, shared, dropped, grain)
    return judge(facts, plans, dropped, grain)


def draw(facts: Facts, strategies: Iterable[Strategy]) -> Plan:
    """The plan of exactly these strategies, refusals ignored."""
    run, chosen = Run(facts), tuple(strategies)
    for strategy in chosen:
        run = strategy.redraw(run)
    return Plan(chosen, run, simulate(run))


def seated(facts: Facts, strategies: Sequence[Strategy]) -> Plan:
    """The plan of these strategies. Raises BadInput when two want one seat, or one refuses to join the others."""
    taken: dict[Seat, Strategy] = {}
    for strategy in strategies:
        for seat in strategy.seats:
            other = taken.setdefault(seat, strategy)
            if other is not strategy:
                raise BadInput(f"{strategy} and {other} both decide the {seat.decision} of {seat.component}: keep one")
    plan = _seat(facts, tuple(sorted(strategies, key=_order)))
    if isinstance(plan, Dropped):
        raise BadInput(f"{plan.what} cannot be: {plan.reason}")
    return plan


def _components(strategy: Strategy) -> int:
    return len({seat.component for seat in strategy.seats})


def _willing(facts: Facts, catalogue: Sequence[type[Strategy]], dropped: list[Dropped]) -> Iterator[Strategy]:
    """Every variant that does not refuse the run on its own."""
    for kind in catalogue:
        for variant in kind.variants(facts):
            refusal = variant.refuses(Run(facts))
            if refusal:
                dropped.append(Dropped(str(variant), refusal))
            else:
                yield variant


def _combinations(
    facts: Facts, variants: Sequence[Strategy], shared: tuple[Strategy, ...], dropped: list[Dropped], grain: int
) -> Iterator[Plan]:
    """Plans that seat `shared`, and of each component one of its undominated options beside it."""
    taken = {seat for s in shared for seat in s.seats}
    names = [c.name for c in facts.model.components]
    free = [[s for s in variants if _only(s, name) and not s.seats & taken] for name in names]
    for combination in product(*(_options(facts, own, shared, dropped, grain) for own in free)):
        chosen = tuple(sorted((*shared, *(s for option in combination for s in option)), key=_order))
        plan = _seat(facts, chosen)
        if isinstance(plan, Plan):
            yield plan


def _only(strategy: Strategy, component: str) -> bool:
    return {seat.component for seat in strategy.seats} == {component}


def _options(
    facts: Facts, variants: Sequence[Strategy], shared: tuple[Strategy, ...], dropped: list[Dropped], grain: int
) -> list[tuple[Strategy, ...]]:
    """The ways to fill the free seats of one component that no other way beats in every respect.

    What a component costs adds to what the others cost, so that an option beaten here is beaten in every plan.
    """
    seats = [[(s,) for s in variants if _decides(s, decision)] for decision in Decision]
    choices = [
        own if decision is Decision.PLACEMENT and own else [(), *own]
        for decision, own in zip(Decision, seats, strict=True)
    ]
    plans: dict[tuple[Strategy, ...], Plan] = {}
    for parts in product(*choices):
        own = tuple(s for part in parts for s in part)
        plan = _seat(facts, tuple(sorted((*shared, *own), key=_order)))
        if isinstance(plan, Plan):
            plans[own] = plan
        elif not shared:
            dropped.append(plan)
    best = {id(p) for p in undominated(plans.values(), partial(share_of, scale=Scale(grain)))}
    if not shared:
        dropped += [Dropped(_name(own), BEATEN) for own, p in plans.items() if id(p) not in best]
    return [own for own, p in plans.items() if id(p) in best]


BEATEN = "another way of running this component needs no more of anything"


def _decides(strategy: Strategy, decision: Decision) -> bool:
    return any(seat.decision is decision for seat in strategy.seats)


def _order(strategy: Strategy) -> tuple[int, str]:
    first = min(list(Decision).index(seat.decision) for seat in strategy.seats)
    return first, str(strategy)


def _name(strategies: Iterable[Strategy]) -> str:
    return " + ".join(str(s) for s in strategies) or "nothing"


def _seat(facts: Facts, strategies: tuple[Strategy, ...]) -> Plan | Dropped:
    """The plan of these strategies, or the first refusal among them."""
    run = Run(facts)
    for strategy in strategies:
        refusal = strategy.refuses(run)
        if refusal:
            return Dropped(_name(strategies), refusal)
        run = strategy.redraw(run)
    return Plan(strategies, run, simulate(run))
