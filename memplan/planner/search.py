"""From a catalogue of techniques to a recommendation."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from memplan.facts import Facts
from memplan.planner.judgement import changes_nothing, judge, no_worse, reasoned
from memplan.planner.plan import Dropped, Plan, Recommendation
from memplan.planner.refine import refined
from memplan.planner.seating import components, filled, seat
from memplan.planner.weighing import COARSE, FINE
from memplan.run import Run
from memplan.strategy import Strategy

if TYPE_CHECKING:
    from memplan.planner.space import Space


def recommend(facts: Facts, catalogue: Sequence[type[Strategy]]) -> Recommendation:
    """Weigh every combination of the catalogue's variants for these facts.

    Where nothing fits, memory is looked at more closely, then techniques come in that others beat, for they may join
    what those cannot, and then last resorts, if less is missing with them. Only what is for that purpose is weighed.
    """
    catalogue = [kind for kind in catalogue if kind.serves(facts.purpose)]
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
    single = [plan for plan in found.front if all(len(components(s)) == 1 for s in plan.strategies)]
    plan = max(single, key=lambda p: p.nearness, default=found.nearest)
    swapped = seat(found.facts, filled(filled([], resorts), plan.strategies))
    return isinstance(swapped, Plan) and swapped.nearness > found.nearest.nearness


def _search(facts: Facts, catalogue: Sequence[type[Strategy]], grain: int, beaten: bool) -> Recommendation:
    from memplan.planner.space import Space  # which imports numpy: only a search needs it

    dropped: list[Dropped] = []
    variants = list(_willing(facts, catalogue, dropped, beaten))
    several = [(s,) for s in variants if len(components(s)) > 1]
    spaces = [Space(facts, variants, shared, dropped, grain) for shared in ((), *several)]
    found = _settled(facts, spaces, dropped, grain)
    idle = [s for s in variants if changes_nothing(s, facts)]
    lean = ((name, _spared(facts, name, plan, idle)) for name, plan in found.picks)
    return replace(found, picks=tuple((name, refined(name, plan, partial(seat, facts))) for name, plan in lean))


ROUNDS = 8
"""How often at most the picks are looked around."""


def _settled(facts: Facts, spaces: Sequence["Space"], dropped: Sequence[Dropped], grain: int) -> Recommendation:
    """The recommendation when no pick gets better by another option of one component.

    Joining components, ways were left out that differ by little, and that little may decide a pick.
    """
    plans = [plan for space in spaces for plan in space.plans()]
    found = judge(facts, plans, dropped, grain)
    seen = {frozenset(plan.strategies) for plan in plans}
    for _ in range(ROUNDS):
        picks = [plan for _, plan in found.picks] or [found.nearest]
        ways = {frozenset(way): way for plan in picks for space in spaces for way in space.around(plan)}
        near = (seat(facts, way) for key, way in ways.items() if key not in seen)
        plans += [plan for plan in near if isinstance(plan, Plan)]
        seen |= ways.keys()
        before, found = found, judge(facts, plans, dropped, grain)
        if [plan.strategies for _, plan in found.picks] == [plan.strategies for _, plan in before.picks]:
            break
    return found


def _spared(facts: Facts, preference: str, plan: Plan, idle: Sequence[Strategy]) -> Plan:
    """The pick without the techniques that it is no worse without: judged by grains, some may have come along."""
    for strategy in plan.strategies:
        if strategy in idle:
            continue
        less = seat(facts, filled([s for s in plan.strategies if s is not strategy], idle))
        if isinstance(less, Plan) and no_worse(preference, less, plan):
            return _spared(facts, preference, reasoned(preference, less), idle)
    return plan


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
