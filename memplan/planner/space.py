"""The combinations that can matter: of each component its best options, joined one component after the other."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from memplan.facts import Facts
from memplan.planner.columns import foreseen
from memplan.planner.judgement import touched
from memplan.planner.offers import Offers, Scale, Way, hopeful, pinning_share_of, price_of, share_of, unbeaten
from memplan.planner.plan import Dropped, Plan
from memplan.planner.seating import components, seat, words
from memplan.planner.weighing import FINE, phases_of
from memplan.simulator import emptied
from memplan.strategy import Decision, Strategy

MOST = 150
"""How many ways to fill the seats of some components go on to the next, which has some 20 options of its own."""
COARSEST = 32
"""By how many times larger differences they are compared at first."""
BEATEN = "another way of running this component, which is weighed, needs no more of anything"


class Space:
    """The plans that seat `shared`, strategies of several components, and of each component one option beside them.

    `options` are those that no other option of the component beats in every respect.
    """

    def __init__(
        self, facts: Facts, variants: Sequence[Strategy], shared: Way, dropped: list[Dropped], grain: int
    ) -> None:
        """What is refused, and what is beaten, goes to `dropped` where nothing is shared."""
        self.facts, self.shared = facts, shared
        taken = {seat for s in shared for seat in s.seats}
        self._grain = grain
        self._scale = Scale(max(grain // (2 * len(facts.model.components)), FINE))  # what each join forgoes adds up
        self._price = share_of if facts.machine.host.pinnable is None else pinning_share_of
        self._start = self._offers([()])
        self.options: dict[str, Offers] = {}
        for component in facts.model.components if self._start else ():
            own = [s for s in variants if components(s) == frozenset((component.name,)) and not s.seats & taken]
            self.options[component.name] = self._options(own, dropped)

    def plans(self) -> Iterator[Plan]:
        """Those that no other beats. Components join one after the other: what is beaten goes no further, costs add."""
        joined = self._start
        for options in self.options.values():
            joined = self._joined(self._some(joined), options)
        best = unbeaten(joined, price_of, Scale(self._grain))
        yield from filter(None, map(best.plan, range(len(best))))

    def around(self, plan: Plan) -> Iterator[Way]:
        """The strategies of `plan` with another option of one component."""
        if set(self.shared) != {s for s in plan.strategies if len(components(s)) > 1}:
            return
        for name, options in self.options.items():
            rest = tuple(s for s in plan.strategies if components(s) != frozenset((name,)))
            yield from ((*rest, *way) for way in options.ways)

    def _offers(self, ways: Iterable[Way]) -> Offers:
        """The plans of these ways that are not refused, everything else as it is."""
        plans = ((way, seat(self.facts, (*self.shared, *way))) for way in ways)
        known = [(way, plan) for way, plan in plans if isinstance(plan, Plan)]
        ways = [way for way, _ in known]
        return Offers.of(ways, [touched(way, self.facts) for way in ways], [plan for _, plan in known])

    def _joined(self, some: Offers, options: Offers) -> Offers:
        """Each two ways in one plan, which is priced when it must be."""
        base, plan = self._start.figures(0), self._start.plan(0)
        if base is None or plan is None:
            return some
        turned = phases_of(emptied(plan.run))
        about = foreseen(some.foreseen, options.foreseen, base, turned, self.facts.machine)
        return some.join(options, about, self._seated)

    def _seated(self, way: Way) -> Plan | None:
        plan = seat(self.facts, (*self.shared, *way))
        return plan if isinstance(plan, Plan) else None

    def _some(self, offers: Offers) -> Offers:
        """The unbeaten ways by the smallest differences, a power of two times those that count, that leave some MOST.

        From the largest on, by which few are left and comparing them is quick.
        """
        chosen = self._scale.times(COARSEST)
        for factor in (COARSEST >> step for step in range(1, COARSEST.bit_length())):
            if len(hopeful(offers, self._price, self._scale.times(factor))) > MOST:
                break
            chosen = self._scale.times(factor)
        return offers.some(hopeful(offers, self._price, chosen))

    def _options(self, variants: Sequence[Strategy], dropped: list[Dropped]) -> Offers:
        """The ways to fill the free seats of one component that no other way beats in every respect."""
        ways = list(_ways(variants))
        offers = self._offers(ways)
        best = unbeaten(offers, self._price, self._scale)
        if not self.shared:
            seated, kept = set(offers.ways), set(best.ways)
            refused = (seat(self.facts, way) for way in ways if way not in seated)
            dropped += [refusal for refusal in refused if isinstance(refusal, Dropped)]
            dropped += [Dropped(words(way), BEATEN) for way in offers.ways if way not in kept]
        return best


def _ways(variants: Sequence[Strategy]) -> Iterator[Way]:
    """Every way to fill the seats of one component, which is placed where something places it."""
    seats = [[(s,) for s in variants if _decides(s, decision)] for decision in Decision]
    choices = [
        own if decision is Decision.PLACEMENT and own else [(), *own]
        for decision, own in zip(Decision, seats, strict=True)
    ]
    yield from (tuple(s for part in parts for s in part) for parts in product(*choices))


def _decides(strategy: Strategy, decision: Decision) -> bool:
    return any(seat.decision is decision for seat in strategy.seats)
