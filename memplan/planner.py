"""Seats times variants, priced: the Pareto front, and four picks from it. Pure and deterministic."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import log1p

from memplan.errors import BadInput
from memplan.facts import GIB, MIB, Facts
from memplan.run import Resident, Run
from memplan.simulator import Bill, simulate
from memplan.strategy import Decision, Seat, Strategy

COMFORT = 0.8
"""The share of the device memory that a balanced plan may take, so that other work does not push it over."""
SAFETY = 0.02
"""The share of the device memory that a pick leaves free where it can: predictions err by about one percent."""
COARSE, FINE = 256 * MIB, 4 * MIB
"""Differences of memory below a grain do not make a plan better than another: at most COARSE, a 64th of the device
memory on small cards, and FINE where a coarser search finds nothing that fits."""
USUAL_LINK = 25e9
USUAL_BANDWIDTH = 500e9
"""Bytes/s of a PCIe 4.0 x16 link and of a mid-range card, where the machine's own are not known."""
PREFERENCES = ("quality", "speed", "memory", "balanced")


@dataclass(frozen=True)
class Plan:
    """Strategies that go together, the run they draw and its price. `reason` says in a sentence why it is offered."""

    strategies: tuple[Strategy, ...]
    run: Run
    bill: Bill
    reason: str = ""

    @property
    def margin(self) -> int:
        """Bytes of device memory left over; negative when it does not fit."""
        return self.run.facts.machine.vram - self.bill.peak.memory.required

    @property
    def host_margin(self) -> int:
        """Bytes of host memory left over; negative when it does not fit."""
        return self.run.facts.machine.ram - self.bill.host.peak

    @property
    def fits(self) -> bool:
        """Whether device and host memory suffice."""
        return self.margin >= 0 and self.host_margin >= 0

    @property
    def effort(self) -> float:
        """What orders plans by speed: predicted seconds, or those of the bytes it copies and casts."""
        if self.bill.seconds is not None:
            return self.bill.seconds
        gpu = self.run.facts.machine.gpu
        link, bandwidth = (gpu.link if gpu else None), (gpu.bandwidth if gpu else None)
        return self.bill.traffic.link / (link or USUAL_LINK) + self.bill.traffic.cast / (bandwidth or USUAL_BANDWIDTH)

    def __str__(self) -> str:
        """The plan as people type it."""
        return " + ".join(str(s) for s in self.strategies) or "nothing"


@dataclass(frozen=True)
class Dropped:
    """A variant or plan that was weighed and left out, and why."""

    what: str
    reason: str


@dataclass(frozen=True)
class Recommendation:
    """The answer: the front, fastest first, the picks by preference, and what was dropped.

    When nothing fits, `picks` is empty and `front` starts with the plan that misses the least.
    """

    facts: Facts
    front: tuple[Plan, ...]
    picks: tuple[tuple[str, Plan], ...]
    dropped: tuple[Dropped, ...] = ()

    def pick(self, preference: str) -> Plan | None:
        """The pick for "quality", "speed", "memory" or "balanced"; None when nothing fits."""
        return dict(self.picks).get(preference)

    @property
    def nearest(self) -> Plan:
        """The plan that misses the machine by the least."""
        return max(self.front, key=lambda p: min(p.margin, p.host_margin))


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


def shortage(plan: Plan) -> str:
    """What a plan that does not fit misses: how much, of which memory, in which phase."""
    peak, machine = plan.bill.peak, plan.run.facts.machine
    if plan.margin < 0:
        place = f"{peak.phase} ({peak.component})" if peak.component else peak.phase
        return (
            f"the nearest plan, {plan}, needs {peak.memory.required / GIB:.2f} GiB of device memory in {place}, "
            f"{-plan.margin / MIB:.0f} MiB more than the {machine.vram / GIB:.2f} GiB there are"
        )
    return (
        f"the nearest plan, {plan}, needs {plan.bill.host.peak / GIB:.2f} GiB of host memory for weights, "
        f"{-plan.host_margin / MIB:.0f} MiB more than the {machine.ram / GIB:.2f} GiB there are"
    )


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


def judge(facts: Facts, plans: Sequence[Plan], dropped: Sequence[Dropped] = (), grain: int = FINE) -> Recommendation:
    """The front of `plans` and the picks from it; differences of memory below `grain` bytes do not count."""
    front = sorted(
        _front(plans, partial(_price, scale=Scale(grain))),
        key=lambda p: (p.effort, p.bill.loss.error, p.bill.peak.memory.required),
    )
    fitting = [p for p in front if p.fits]
    safe = [p for p in fitting if p.margin >= SAFETY * facts.machine.vram] or fitting
    picks = tuple((name, _pick(name, safe)) for name in PREFERENCES) if fitting else ()
    if not fitting:
        front.sort(key=lambda p: -min(p.margin, p.host_margin))
    return Recommendation(facts, tuple(front), picks, tuple(dropped))


# ---- combinations ---------------------------------------------------------------------------------------------------
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
    best = {id(p) for p in _front(plans.values(), partial(_vector, scale=Scale(grain)))}
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


# ---- judgement ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Scale:
    """How much less of something counts as less: bytes of memory, a share of the effort, an error of weights."""

    memory: int
    effort: float = 0.05
    loss: float = 0.002


def _price(plan: Plan, scale: Scale) -> tuple[float, ...]:
    """What the front weighs, each in units of its scale: device memory, host memory, effort and loss."""
    bill = plan.bill
    memory = (bill.peak.memory.required / scale.memory, bill.host.peak / scale.memory)
    return (*memory, log1p(plan.effort) / scale.effort, bill.loss.error / scale.loss)


def _vector(plan: Plan, scale: Scale) -> tuple[float, ...]:
    """All that an option of one component adds to a plan: memory in each phase, and the rest of its price."""
    phases = tuple(peak.memory.required / scale.memory for peak in plan.bill.peaks)
    return (*phases, plan.bill.host.steady / scale.memory, *_price(plan, scale))


def _front(plans: Iterable[Plan], price: Callable[[Plan], tuple[float, ...]]) -> list[Plan]:
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
    touched = sum(_components(s) for s in plan.strategies if not _leaves(plan, s))
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
    return {
        "quality": f"The least loss that fits ({bill.loss.word}), and of those the fastest: {moved}.",
        "speed": f"The least copying and casting that fits: {moved}, precision {bill.loss.word}.",
        "memory": f"The smallest peak of all plans that fit: {used}; {moved}.",
        "balanced": f"The least copying and casting within {COMFORT:.0%} of the device memory: {used}; {moved}."
        if _comfortable(plan)
        else f"No plan stays within {COMFORT:.0%} of the device memory; of those that fit the fastest: {used}; {moved}.",
    }[preference]
