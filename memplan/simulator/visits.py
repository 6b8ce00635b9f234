"""The calls of a run one by one, with what others have on the device meanwhile."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from memplan.facts import Call, Step
from memplan.run import Part, Partly, Run, by_turns
from memplan.simulator.forwards import Forwards
from memplan.simulator.host import host_memory
from memplan.simulator.itinerary import itinerary
from memplan.simulator.movers import outside
from memplan.simulator.partial import away
from memplan.simulator.weights import anonymous, total


class Visit(NamedTuple):
    """`step.repeat` runs of `call`. `others` are bytes of weights that each other one has on the device.

    `here` names the components that take turns and are on the device, the called one included; `lent` are those of them
    that host memory does not hold meanwhile. `moving` are the seconds in which they are moved before the call. `kept`
    are the bytes that step caches keep.
    """

    step: Step
    call: Call
    others: Mapping[str, int]
    here: frozenset[str]
    lent: frozenset[str]
    moving: float
    kept: int = 0


def visits(run: Run) -> Iterator[Visit]:
    """Every step in order."""
    resident = {name: _outside(part) for name, part in run.parts.items() if not by_turns(part.placement)}
    staying, forwards = {name: nbytes for name, nbytes in resident.items() if nbytes}, Forwards(run)
    for leg in itinerary(run).legs:
        step, call, moved = leg.step, leg.call, moving(run, leg.come, leg.gone) if leg.come or leg.gone else 0.0
        there = staying | {name: size(run.parts[name]) for name in leg.here} if leg.here else staying
        others = {name: nbytes for name, nbytes in there.items() if name != call.component}
        if not forwards.cached(call):
            yield Visit(step, call, others, leg.here, leg.lent, moved, forwards.kept)
            continue
        for number, (times, made, kept) in enumerate(forwards.of(call, step.repeat)):
            yield Visit(Step(step.call, times), made, others, leg.here, leg.lent, 0.0 if number else moved, kept)


def moving(run: Run, come: Sequence[str], gone: Sequence[str]) -> float:
    """Seconds in which components come from memory that is not pinned, and others go back to it.

    What lies in files comes from the system's cache of them where that has room, else from the disk each time. What
    comes on demand is read over on the device when it is there and before it is dropped, for what was changed of it.
    """
    rates, parts = run.facts.machine.rates, run.parts
    seconds = sum(size(parts[n]) for n in come) / rates.to_device + sum(size(parts[n]) for n in gone) / rates.to_host
    seconds += sum(2 * size(parts[n]) for n in come if by_turns(parts[n].placement)) / rates.bandwidth
    read = read_again(run, come)
    return seconds + max(read / rates.disk - read / rates.to_device, 0.0)


def read_again(run: Run, come: Iterable[str]) -> int:
    """Bytes of the components that `come` which the disk gives each time, as host memory has no room to keep them."""
    read = sum(_mapped(run.parts[name]) for name in come)
    return read if read and not _cached(run) else 0


def _cached(run: Run) -> bool:
    """Whether what lies in files finds room in host memory beside what has to be there."""
    machine = run.facts.machine
    return sum(map(_mapped, run.parts.values())) <= machine.ram - host_memory(run).steady


@lru_cache(maxsize=8192)
def _mapped(part: Part) -> int:
    """Bytes of what comes on demand of a component that lie in its files."""
    component, stored, placement = part.component, part.stored, part.placement
    made = anonymous(component, stored, away(component, placement, stored))
    return size(part) - made if by_turns(placement) else 0


@lru_cache(maxsize=8192)
def size(part: Part) -> int:
    """Bytes of a component as stored, those aside that are streamed."""
    return _outside(part) if isinstance(part.placement, Partly) else total(part.component, part.stored)


@lru_cache(maxsize=8192)
def _outside(part: Part) -> int:
    return outside(part.component, part.placement, part.stored)
