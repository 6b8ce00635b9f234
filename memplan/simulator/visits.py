"""The timeline of a run, and who is on the device beside the component that is called."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from memplan.facts import FREED, PAIRED, Call, Step, Trace
from memplan.run import Part, Partly, Run, by_turns
from memplan.simulator.chain import Chain
from memplan.simulator.forwards import Forwards
from memplan.simulator.host import host_memory
from memplan.simulator.movers import outside
from memplan.simulator.partial import away
from memplan.simulator.weights import anonymous, total


@dataclass(frozen=True)
class Visit:
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


def visits(run: Run, chain: Chain) -> Iterator[Visit]:
    """Every step in order; `chain` follows them."""
    resident = {name: _outside(part) for name, part in run.parts.items() if not by_turns(part.placement)}
    staying, forwards = {name: nbytes for name, nbytes in resident.items() if nbytes}, Forwards(run)
    for step, call in _steps(run):
        moved = moving(run, *chain.call(call.component, call.method))
        there = staying | {name: size(run.parts[name]) for name in chain.here}
        others = {name: nbytes for name, nbytes in there.items() if name != call.component}
        for number, (times, made, kept) in enumerate(forwards.of(call, step.repeat)):
            here = frozenset(chain.here), chain.lent
            yield Visit(Step(step.call, times), made, others, *here, 0.0 if number else moved, kept)


def moving(run: Run, come: Sequence[str], gone: Sequence[str]) -> float:
    """Seconds in which components come from memory that is not pinned, and others go back to it.

    What lies in files comes from the system's cache of them where that has room, else from the disk each time.
    """
    rates = run.facts.machine.rates
    if not come and not gone:
        return 0.0
    parts = run.parts
    seconds = sum(size(parts[n]) for n in come) / rates.to_device + sum(size(parts[n]) for n in gone) / rates.to_host
    read = sum(_mapped(parts[n]) for n in come)
    if read and not _cached(run):
        seconds += max(read / rates.disk - read / rates.to_device, 0.0)
    return seconds


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


def _steps(run: Run) -> Iterator[tuple[Step, Call]]:
    """Each step, and its call as this run makes it.

    Where one takes the place of several, the first so many of the component are made one by one: from them it is known
    what the others will be given.
    """
    known: set[str] = set()
    freed = {name: _freed(ways) for name, ways in run.variants.items()}
    for step in run.facts.trace.timeline:
        made = run.facts.trace.calls[step.call]
        call, spared = _varied(run, made), min(freed.get(made.component, 0), step.repeat)
        repeat = step.repeat - spared
        if spared:
            freed[made.component] -= spared
        if not repeat:
            continue
        if call.serves > 1 and call.component not in known:
            known.add(call.component)
            yield Step(step.call, min(call.serves, repeat)), _varied(run, made, without=PAIRED)
            repeat -= min(call.serves, repeat)
        if repeat:
            yield Step(step.call, -(-repeat // call.serves)), call


def _freed(ways: Iterable[str]) -> int:
    """How many of the first calls are not made."""
    return sum(int(way.partition(":")[2]) for way in ways if way.startswith(f"{FREED}:"))


def _varied(run: Run, call: Call, without: str = "") -> Call:
    ways = run.variant(call.component) - {without}
    return _alternative(run.facts.trace, call, ways) if ways else call


@lru_cache(maxsize=4096)
def _alternative(trace: Trace, call: Call, ways: frozenset[str]) -> Call:
    return trace.alternative(call, ways)
