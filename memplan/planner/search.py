"""Seats times variants: every combination that can matter, priced."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

from memplan.errors import BadInput
from memplan.facts import Facts
from memplan.planner.judgement import (
    COARSE,
    FINE,
    Scale,
    changes_nothing,
    judge,
    no_worse,
    reasoned,
    share_of,
    undominated,
)
from memplan.planner.plan import Dropped, Plan, Recommendation
from memplan.planner.refine import refined
from memplan.run import Run
from memplan.simulator import simulate
from memplan.strategy import Decision, Strategy, in_order


def recommend(facts: Facts, catalogue: Sequence[type[Strategy]]) -> Recommendation:
    """Weigh every combination of the catalogue's variants for these facts.

    Where nothing fits, memory is looked at more closely, then techniques come in that others beat, for they may join
    what those cannot, and then last resorts, if less is missing with them.
    """
    usual = [kind for kind in catalogue if not kind.last_resort]
    resorts = [variant for kind in catalogue if kind.last_resort for variant in kind.variants(facts)]
    found = _finer(facts, usual)
    found = found if found.picks else _finer(facts, usual, beaten=True)
    return _finer(facts, catalogue, beaten=True) if not found.picks and _help(found, resorts) else found


def _finer(facts: Facts, catalogue: Sequence[type[Strategy]], *, beaten: bool = False) -> Recommendation:
    coarse = max(min(COARSE, facts.machine.vram // 64), FINE)
    found = _search(facts, catalogue, coarse, beaten)
    return found if found.picks or coarse == FINE else _search(facts, catalogue, FINE, beaten)


def _help(found: Recommendation, resorts: Sequence[Strategy]) -> bool:
    """Whether less is missing when `resorts`, as many as go together, take seats in the nearest plan of single ones."""
    single = [plan for plan in found.front if all(_components(s) == 1 for s in plan.strategies)]
    plan = max(single, key=lambda p: p.nearness, default=found.nearest)
    swapped = _seat(found.facts, _filled(_filled([], resorts), plan.strategies))
    return isinstance(swapped, Plan) and swapped.nearness > found.nearest.nearness


def _search(facts: Facts, catalogue: Sequence[type[Strategy]], grain: int, beaten: bool) -> Recommendation:
    dropped: list[Dropped] = []
    variants = list(_willing(facts, catalogue, dropped, beaten))
    plans: list[Plan] = []
    for shared in ((), *((s,) for s in variants if _components(s) > 1)):
        plans += _combinations(facts, variants, shared, dropped, grain)
    found = judge(facts, plans, dropped, grain)
    idle = [s for s in variants if changes_nothing(s, facts)]
    lean = ((name, _spared(facts, name, plan, idle)) for name, plan in found.picks)
    return replace(found, picks=tuple((name, refined(name, plan, partial(_seat, facts))) for name, plan in lean))


def _spared(facts: Facts, preference: str, plan: Plan, idle: Sequence[Strategy]) -> Plan:
    """The pick without the techniques that it is no worse without: judged by grains, some may have come along."""
    for strategy in plan.strategies:
        if strategy in idle:
            continue
        less = _seat(facts, _filled([s for s in plan.strategies if s is not strategy], idle))
        if isinstance(less, Plan) and no_worse(preference, less, plan):
            return _spared(facts, preference, reasoned(preference, less), idle)
    return plan


def draw(facts: Facts, strategies: Iterable[Strategy]) -> Plan:
    """The plan of exactly these strategies, refusals ignored."""
    run, chosen = Run(facts), tuple(strategies)
    for strategy in chosen:
        run = strategy.redraw(run)
    return Plan(chosen, run, simulate(run))


def seated(facts: Facts, strategies: Sequence[Strategy]) -> Plan:
    """The plan of these strategies. Raises BadInput when two want one seat, or one refuses to join the others."""
    plan = _seat(facts, strategies)
    if isinstance(plan, Dropped):
        raise BadInput(f"{plan.what} cannot be: {plan.reason}")
    return plan


def _filled(chosen: list[Strategy], idle: Sequence[Strategy]) -> list[Strategy]:
    """`chosen`, and on the seats they leave free what is `idle`."""
    for strategy in idle:
        if not any(strategy.seats & other.seats for other in chosen):
            chosen.append(strategy)
    return chosen


def _components(strategy: Strategy) -> int:
    return len({seat.component for seat in strategy.seats})


def _willing(
    facts: Facts, catalogue: Sequence[type[Strategy]], dropped: list[Dropped], beaten: bool
) -> Iterator[Strategy]:
    """Every variant that does not refuse the run on its own; those that others beat only where those can't be had."""
    weighed = [(variant, variant.refuses(Run(facts))) for kind in catalogue for variant in kind.variants(facts)]
    there = {(variant.name, seat) for variant, refusal in weighed if not refusal for seat in variant.seats}
    for variant, refusal in weighed:
        loses = not beaten and any((variant.beaten_by, seat) in there for seat in variant.seats)
        why = variant.opt_in or (f"{variant.beaten_by} is as small and as fast, and loses no more" if loses else "")
        if refusal or why:
            dropped.append(Dropped(str(variant), refusal or f"{why}; to have it all the same, name {variant.name}"))
        else:
            yield variant


def _combinations(
    facts: Facts, variants: Sequence[Strategy], shared: tuple[Strategy, ...], dropped: list[Dropped], grain: int
) -> Iterable[Plan]:
    """Plans that seat `shared`, and of each component one of its undominated options beside it.

    Components join one after the other, and what is beaten so far goes no further: costs add.
    """
    taken = {seat for s in shared for seat in s.seats}
    scale = Scale(max(grain // (2 * len(facts.model.components)), FINE))  # what each join forgoes adds up
    joined = _seated(facts, shared, [()])
    for component in facts.model.components:
        own = [s for s in variants if _only(s, component.name) and not s.seats & taken]
        options = _options(facts, own, shared, dropped, scale)
        ways = ((*chosen, *option) for chosen, option in product(_some(joined, scale), options))
        joined = _seated(facts, shared, ways)
    return joined.values()


MOST = 150
"""How many ways to fill the seats of some components go on to the next, which has some 20 options of its own."""
COARSEST = 32
"""By how many times larger differences they are compared at first."""
Way = tuple[Strategy, ...]
"""What is decided about one or several components."""


def _seated(facts: Facts, shared: Way, ways: Iterable[Way]) -> dict[Way, Plan]:
    """The plans of these ways that are not refused, everything else as it is."""
    plans = ((way, _seat(facts, (*shared, *way))) for way in ways)
    return {way: plan for way, plan in plans if isinstance(plan, Plan)}


def _unbeaten(plans: Mapping[Way, Plan], scale: Scale) -> list[Way]:
    best = {id(plan) for plan in undominated(plans.values(), partial(share_of, scale=scale))}
    return [way for way, plan in plans.items() if id(plan) in best]


def _some(plans: Mapping[Way, Plan], scale: Scale) -> list[Way]:
    """The unbeaten ways by the smallest differences, a power of two times those of `scale`, that leave MOST or fewer.

    From the largest on, by which few are left and comparing them is quick.
    """
    best = _unbeaten(plans, scale.times(COARSEST))
    for factor in (COARSEST >> step for step in range(1, COARSEST.bit_length())):
        finer = _unbeaten(plans, scale.times(factor))
        if len(finer) > MOST:
            break
        best = finer
    return best


def _only(strategy: Strategy, component: str) -> bool:
    return {seat.component for seat in strategy.seats} == {component}


def _options(
    facts: Facts, variants: Sequence[Strategy], shared: Way, dropped: list[Dropped], scale: Scale
) -> list[Way]:
    """The ways to fill the free seats of one component that no other way beats in every respect."""
    seats = [[(s,) for s in variants if _decides(s, decision)] for decision in Decision]
    choices = [
        own if decision is Decision.PLACEMENT and own else [(), *own]
        for decision, own in zip(Decision, seats, strict=True)
    ]
    ways = [tuple(s for part in parts for s in part) for parts in product(*choices)]
    plans = _seated(facts, shared, ways)
    best = _unbeaten(plans, scale)
    if not shared:
        refused = (_seat(facts, way) for way in ways if way not in plans)
        dropped += [refusal for refusal in refused if isinstance(refusal, Dropped)]
        dropped += [Dropped(_name(way), BEATEN) for way in plans if way not in best]
    return best


BEATEN = "another way of running this component, which is weighed, needs no more of anything"


def _decides(strategy: Strategy, decision: Decision) -> bool:
    return any(seat.decision is decision for seat in strategy.seats)


def _name(strategies: Iterable[Strategy]) -> str:
    return " + ".join(str(s) for s in strategies) or "nothing"


def _seat(facts: Facts, strategies: Iterable[Strategy]) -> Plan | Dropped:
    """The plan of these strategies, or the first refusal among them. Raises BadInput where two want one seat."""
    run, chosen = Run(facts), in_order(strategies)
    for strategy in chosen:
        refusal = strategy.refuses(run)
        if refusal:
            return Dropped(_name(chosen), refusal)
        run = strategy.redraw(run)
    return Plan(chosen, run, simulate(run))
