"""The timeline of a run: which call is made when, and which components come and go for it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from memplan.facts import FREED, PAIRED, Call, Model, Step, Trace
from memplan.run import OnCall, Run, by_turns
from memplan.simulator.chain import Chain

Ways = Mapping[str, frozenset[str]]
"""The ways in which components are called otherwise than the pipeline does."""


@dataclass(frozen=True)
class Leg:
    """`step.repeat` runs of `call`: components that `come` before it and that have `gone`, and who is `here` then.

    `here` are those that take turns, the called one included; `lent` are those of them that host memory does not hold
    meanwhile.
    """

    step: Step
    call: Call
    come: tuple[str, ...]
    gone: tuple[str, ...]
    here: frozenset[str]
    lent: frozenset[str]


@dataclass(frozen=True, eq=False)
class Itinerary:
    """The legs of a run in order, and the components that go back at its end; all that arrived and that departed."""

    legs: tuple[Leg, ...]
    back: tuple[str, ...]
    arrivals: tuple[str, ...]
    departures: tuple[str, ...]


def itinerary(run: Run) -> Itinerary:
    """That of `run`: one for all runs in which the same components take turns and are called in the same ways."""
    parts = run.parts.values()
    managed = tuple(part.name for part in parts if isinstance(part.placement, OnCall))
    on_demand = tuple(part.name for part in parts if by_turns(part.placement))
    ways = tuple((part.name, part.ways) for part in parts if part.ways)
    return _itinerary(run.facts.model, run.facts.trace, managed, on_demand, ways)


@lru_cache(maxsize=1024)
def _itinerary(
    model: Model,
    trace: Trace,
    managed: tuple[str, ...],
    on_demand: tuple[str, ...],
    ways: tuple[tuple[str, frozenset[str]], ...],
) -> Itinerary:
    chain, legs = Chain(model, trace, managed, on_demand), list[Leg]()
    for step, call in _steps(trace, dict(ways)):
        come, gone = chain.call(call.component, call.method)
        legs.append(Leg(step, call, tuple(come), tuple(gone), frozenset(chain.here), chain.lent))
    back = tuple(chain.finish())
    return Itinerary(tuple(legs), back, tuple(chain.arrivals), tuple(chain.departures))


def _steps(trace: Trace, ways: Ways) -> Iterator[tuple[Step, Call]]:
    """Each step, and its call as it is made in these ways.

    Where one takes the place of several, the first so many of the component are made one by one: from them it is known
    what the others will be given.
    """
    known: set[str] = set()
    freed = {name: _freed(own) for name, own in ways.items()}
    for step in trace.timeline:
        made = trace.calls[step.call]
        own = ways.get(made.component, frozenset())
        call, spared = trace.alternative(made, own), min(freed.get(made.component, 0), step.repeat)
        repeat = step.repeat - spared
        if spared:
            freed[made.component] -= spared
        if not repeat:
            continue
        if call.serves > 1 and call.component not in known:
            known.add(call.component)
            yield Step(step.call, min(call.serves, repeat)), trace.alternative(made, own - {PAIRED})
            repeat -= min(call.serves, repeat)
        if repeat:
            yield Step(step.call, -(-repeat // call.serves)), call


def _freed(ways: frozenset[str]) -> int:
    """How many of the first calls are not made."""
    return sum(int(way.partition(":")[2]) for way in ways if way.startswith(f"{FREED}:"))
