"""What is weighed of plans, and what is foreseen of those that join two."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memplan.facts import MIB, Machine
from memplan.planner.plan import Plan
from memplan.simulator import Arriving, Bill, arriving, turns

SAFETY = 0.02
"""The share of device and host memory that a pick leaves free where it can: predictions err by about one percent."""
COMFORT = 0.8
"""The share of either memory that a balanced plan may take, so that other work does not push it over."""
COARSE, FINE = 256 * MIB, 4 * MIB
"""Differences of memory below a grain do not make a plan better than another: at most COARSE, a 64th of the device
memory on small cards, and FINE where a coarser search finds nothing that fits."""
INSTANT = 1e-6
"""Seconds below which no plan is faster than another."""
MISFIT = 2
"""The rank of a plan that does not fit."""


def rank(plan: Plan) -> int:
    """0 fits with something to spare, 1 fits, 2 does not fit."""
    if not plan.fits:
        return MISFIT
    machine = plan.run.facts.machine
    return 0 if plan.margin >= SAFETY * machine.vram and plan.host_margin >= SAFETY * machine.ram else 1


def comfortable(required: Any, host: Any, machine: Machine) -> Any:
    """Whether so much device and host memory, or each of columns of both, is what a balanced plan may take."""
    return (required <= COMFORT * machine.vram) & (host <= COMFORT * machine.ram)


# ---- figures ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Figures:
    """What is weighed of a plan: device memory by phase and at most, and host memory, in bytes; seconds; loss; fit.

    `phases` are those of components; beside the pipeline's own code components take turns whose peaks do not add up.
    `turns` is whether some come and leave for others, and the allocator's cache with them.
    `steady` and `host` are host memory between calls and at most, `pinned` is part of both. `beyond` is what the call
    takes at most beyond `steady`, and `arriving` what each component takes before it. `ways` counts the other ways in
    which components are called.
    """

    phases: tuple[int, ...]
    required: int
    steady: int
    beyond: int
    arriving: Mapping[str, Arriving]
    host: int
    pinned: int
    effort: float
    error: float
    tiles: int
    ways: int
    rank: int
    comfortable: bool
    turns: bool


def figures(plan: Plan) -> Figures:
    """Those of a plan."""
    bill, ways = plan.bill, sum(map(len, plan.run.variants.values()))
    phases, host = phases_of(bill), bill.host
    beyond = max((peak.host - host.steady for peak in bill.peaks), default=0)
    on_host = host.steady, beyond, arriving(plan.run), host.peak, host.pinned
    memory = phases, bill.peak.memory.required, *on_host
    easy = comfortable(bill.peak.memory.required, host.peak, plan.run.facts.machine)
    return Figures(*memory, plan.effort, bill.loss.error, bill.loss.tiles, ways, rank(plan), easy, turns(plan.run))


def phases_of(bill: Bill) -> tuple[int, ...]:
    """Device memory in the phases of components, in bytes."""
    return tuple(peak.memory.required for peak in bill.peaks if peak.component)
