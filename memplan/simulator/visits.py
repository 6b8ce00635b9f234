"""The timeline of a run, and who is on the device beside the component that is called."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from memplan.facts import Call, Step
from memplan.run import Run
from memplan.simulator.chain import Chain
from memplan.simulator.movers import outside
from memplan.simulator.weights import total


@dataclass(frozen=True)
class Visit:
    """`step.repeat` runs of `call`. `others` are bytes of weights that other components hold on the device meanwhile.

    `here` names the components that model offload has on the device, the called one included; `moving` are the seconds
    in which it moves them before the call.
    """

    step: Step
    call: Call
    others: int
    here: frozenset[str]
    moving: float


def visits(run: Run, chain: Chain) -> Iterator[Visit]:
    """Every step in order; `chain` follows them."""
    resident = {c.name: outside(c, run.placement(c.name), run.stored(c.name)) for c in run.facts.model.components}
    everything = sum(resident.values())
    for step in run.facts.trace.timeline:
        call = _varied(run, run.facts.trace.calls[step.call])
        moved = moving(run, *chain.call(call.component))
        others = everything - resident.get(call.component, 0)
        others += sum(size(run, name) for name in chain.here if name != call.component)
        yield Visit(step, call, others, frozenset(chain.here), moved)


def moving(run: Run, come: Sequence[str], gone: Sequence[str]) -> float:
    """Seconds in which components come from memory that is not pinned, and others go back to it."""
    rates = run.facts.machine.rates
    return sum(size(run, n) for n in come) / rates.to_device + sum(size(run, n) for n in gone) / rates.to_host


def size(run: Run, name: str) -> int:
    """Bytes of the weights of component `name` as stored."""
    return total(run.facts.model.component(name), run.stored(name))


def _varied(run: Run, call: Call) -> Call:
    ways = run.variant(call.component)
    return run.facts.trace.alternative(call, ways) if ways else call
