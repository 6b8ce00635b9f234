"""What a plan needs more of than there is, or than is allowed."""

from collections.abc import Iterator
from dataclasses import dataclass

from memplan.facts import LOSSES, Machine
from memplan.facts.units import amount, duration, mib
from memplan.run import Run
from memplan.simulator import Bill


@dataclass(frozen=True)
class Shortage:
    """What is short, "device", "host" or "pinned" memory in bytes, "seconds", or "loss" as its place among LOSSES."""

    of: str
    what: str
    needed: float
    there: float
    allowed: bool = False

    @property
    def missing(self) -> float:
        """By how much it does not fit."""
        return self.needed - self.there

    def __str__(self) -> str:
        """How much of what, and how much more than there is or than the user allows."""
        if self.of == "loss":
            return f"{self.what}, and {LOSSES[int(self.there)]} is allowed"
        if self.of == "seconds":
            return f"{duration(self.needed)}, {duration(self.missing)} more than the {duration(self.there)} allowed"
        there = f"the {amount(self.there)} {'allowed' if self.allowed else 'there are'}"
        return f"{amount(self.needed)} of {self.what}, {mib(self.missing)} MiB more than {there}"


def shortages(run: Run, bill: Bill) -> tuple[Shortage, ...]:
    """What a run with this bill needs more of than its machine has and the user allows; () when it fits."""
    machine = run.facts.machine
    needs = (*_memories(machine, bill), *_others(machine, bill))
    return tuple(need for need in needs if need.missing > 0)


def _memories(machine: Machine, bill: Bill) -> Iterator[Shortage]:
    peak, host, limits = bill.peak, bill.host, machine.limits
    place = f"{peak.phase} ({peak.component})" if peak.component else peak.phase
    device = f"device memory in {place}"
    yield Shortage("device", device, peak.memory.required, machine.vram, machine.vram_limited)
    if not machine.unified:
        yield Shortage("host", "host memory", host.peak, machine.ram, machine.ram == limits.ram)
    else:
        both = host.peak + peak.memory.required
        yield Shortage("host", "memory for device and host together", both, machine.ram, machine.ram == limits.ram)
    if machine.host.pinnable is not None:
        yield Shortage("pinned", "pinned host memory", host.pinned, machine.pinnable)


def _others(machine: Machine, bill: Bill) -> Iterator[Shortage]:
    seconds, word = machine.limits.seconds, machine.limits.loss
    if word is not None:
        what = f"a loss that is {bill.loss.word} (relative weight error {bill.loss.error:.4f})"
        yield Shortage("loss", what, LOSSES.index(bill.loss.word), LOSSES.index(word))
    if seconds is not None:
        yield Shortage("seconds", "time", bill.seconds, seconds)
