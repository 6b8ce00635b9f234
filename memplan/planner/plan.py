"""A plan, a recommendation, and what was dropped on the way."""

from dataclasses import dataclass

from memplan.facts import GIB, MIB, Facts
from memplan.run import Run
from memplan.simulator import Bill
from memplan.strategy import Strategy

USUAL_LINK = 25e9
USUAL_BANDWIDTH = 500e9
"""Bytes/s of a PCIe 4.0 x16 link and of a mid-range card, where the machine's own are not known."""


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


def shortage(plan: Plan) -> str:
    """What a plan that does not fit misses: how much, of which memory, in which phase."""
    peak, machine = plan.bill.peak, plan.run.facts.machine
    place = f"{peak.phase} ({peak.component})" if peak.component else peak.phase
    needs = (
        (f"device memory in {place}", peak.memory.required, machine.vram),
        ("host memory for weights", plan.bill.host.peak, machine.ram),
    )
    missed = (
        f"{need / GIB:.2f} GiB of {what}, {(need - have) / MIB:.0f} MiB more than the {have / GIB:.2f} GiB there are"
        for what, need, have in needs
        if need > have
    )
    return f"the nearest plan, {plan}, needs {', and '.join(missed)}"
