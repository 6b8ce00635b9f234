"""A training step: weights, optimizer states and averages stay; gradients and activations come and go."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from memplan.facts import Call, Facts, Training
from memplan.facts.training import ACCUMULATE
from memplan.run import Run
from memplan.simulator.bill import Bill, Loss, Peak, Traffic
from memplan.simulator.host import host_memory
from memplan.simulator.optimizers import OPTIMIZERS, averaging
from memplan.simulator.seconds import seconds
from memplan.simulator.standing import memory_of, taken

STEP, AVERAGING, BETWEEN = "optimizer step", "averaging weights", "between steps"
"""The phases beside forwards and backwards."""


def priced(run: Run, training: Training) -> Bill:
    """The bill of a training step: the peak of each of its phases, from the second step on. Pure.

    The first step holds no more: its optimizer makes the states when all activations are gone.
    """
    held, host = Held.of(run.facts, training), host_memory(run)
    peaks = [*_passes(run, held), *_after(run, held, training)]
    phases = tuple(replace(peak, host=host.steady) for peak in peaks)
    return Bill(phases, host, Traffic(0, 0, 0), Loss(0.0))


@dataclass(frozen=True)
class Held:
    """Bytes of each tensor on the device from step to step, and of each gradient."""

    weights: tuple[int, ...]
    states: tuple[int, ...]
    gradients: tuple[int, ...]

    @classmethod
    def of(cls, facts: Facts, training: Training) -> "Held":
        """What is held of the component that is trained; averages of the weights are among the states."""
        trained = facts.trace.trained
        weights = tuple(weight.nbytes for part in facts.model.components for weight in part.weights)
        gradients = tuple(weight.nbytes for weight in trained)
        averages = gradients if training.ema else ()
        return cls(weights, (*OPTIMIZERS[training.optimizer].held(trained), *averages), gradients)


def _passes(run: Run, held: Held) -> Iterator[Peak]:
    """Forward and backward, and once more beside gradients that are there already where they are added up."""
    trace, rates = run.facts.trace, run.facts.machine.rates
    for step in trace.timeline:
        plain = trace.calls[step.call]
        call = trace.alternative(plain, run.variant(plain.component))
        part = run.facts.model.component(call.component)
        peak = _peak(run, call.phase, held, (call.activations, _at_once(run, call)), call)
        took = seconds(part, run.placement(part.name), run.stored(part.name), call, rates)
        yield replace(peak, seconds=took * step.repeat)


def _at_once(run: Run, call: Call) -> int:
    """Bytes of gradients that compiled code holds beside those that are there already.

    Uncompiled each is added as soon as it is made; a compiled backward returns those of its module together
    (`CompiledFunction.backward` of torch/_functorch/_aot_autograd/runtime_wrappers.py).
    """
    compiled = run.compiled.get(call.component)
    if compiled is None or call.method != ACCUMULATE:
        return 0
    trained = run.facts.trace.trained
    inside = (f"{path}." if path else "" for path in compiled.modules)
    return max((sum(w.nbytes for w in trained if w.name.startswith(prefix)) for prefix in inside), default=0)


def _after(run: Run, held: Held, training: Training) -> Iterator[Peak]:
    """The optimizer's step, that of averages when gradients are gone, and what is left between two steps.

    Their seconds are those of reading and writing each tensor once, as one kernel for all would.
    """
    trained, device = run.facts.trace.trained, run.facts.trace.device
    bandwidth, weights = run.facts.machine.rates.bandwidth, sum(held.gradients)
    made = OPTIMIZERS[training.optimizer].temporaries(trained, device)
    moved = 3 * weights + 2 * sum(held.states)
    yield replace(_peak(run, STEP, held, (*held.gradients, made)), seconds=moved / bandwidth)
    if training.ema:
        yield replace(_peak(run, AVERAGING, held, (averaging(trained),)), seconds=3 * weights / bandwidth)
    yield _peak(run, BETWEEN, held, ())


def _peak(run: Run, phase: str, held: Held, others: Sequence[int], call: Call | None = None) -> Peak:
    """The peak of a phase that holds `others` beside what stays: one tensor each, or all that `call` holds."""
    name = run.facts.model.components[0].name
    more = sum(others) - call.activations if call else 0
    beside = (
        (sum(others), *(call.base + n + more for n in (call.reserved_alone, call.occupied_alone))) if call else None
    )
    allocated, reserved, occupied = beside or (sum(others), *[taken(others, run)[1]] * 2)
    memory = memory_of(run, taken((*held.weights, *held.states), run), allocated, reserved, occupied)
    op = call.ops[call.peak_segment.op] if call else ""
    return Peak(phase, name, memory, sum(held.weights), 0, sum(others), "", op, host=0, states=sum(held.states))
