"""One row of the comparison: a contender's plan for a model on a machine, priced."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from memplan import planner
from memplan.errors import BadInput
from memplan.faces.api import named
from memplan.faces.matrix.version import digest, sources
from memplan.facts import GIB, Facts
from memplan.planner import Plan
from memplan.planner.weighing import SAFETY
from memplan.registry import strategies
from tests.comparison.contenders import CONTENDERS, QUALITY, SPEED

PICKS = {SPEED: "speed", QUALITY: "quality"}


@dataclass(frozen=True, order=True)
class Case:
    """A model, with the call of its published example, a card of the catalogue, and GiB of host memory."""

    model: str
    card: str
    ram: float


@dataclass(frozen=True)
class Row:
    """What is predicted of one contender: seconds of a call, GiB of either memory, whether it fits, and its loss.

    `spare` is whether 2 % of either memory are left. `error` is the relative error of weights, `tiles` as in a bill's
    Loss. `refused` says why there is no plan, or why it cannot be; the figures are then 0. `program` tells the state of
    memplan's sources that priced it.
    """

    model: str
    card: str
    ram: float
    contender: str
    plan: str
    seconds: float
    vram_gib: float
    ram_gib: float
    fits: bool
    spare: bool
    loss: str
    error: float
    tiles: int
    refused: str
    program: str

    @property
    def case(self) -> Case:
        """What the contenders are compared on."""
        return Case(self.model, self.card, self.ram)


def compared(case: Case, facts: Facts) -> list[Row]:
    """The rows of `case`: memplan's picks, then every contender."""
    found = planner.recommend(facts, strategies())
    picked = [
        _row(case, name, str(plan), plan) for name, plan in ((n, found.pick(p)) for n, p in PICKS.items()) if plan
    ]
    missing = ", and ".join(map(str, found.nearest.shortages))
    nothing = (
        [] if picked else [_refused(case, name, f"nothing fits: the nearest plan needs {missing}") for name in PICKS]
    )
    return [*picked, *nothing, *(_contender(case, name, facts) for name in CONTENDERS)]


def _contender(case: Case, name: str, facts: Facts) -> Row:
    """The row of a contender; of one that has no plan, or whose plan cannot be, with the sentence that says so."""
    try:
        text = CONTENDERS[name](facts)
        return _row(case, name, text, named(facts, [text]))
    except BadInput as refusal:
        return _refused(case, name, str(refusal))


def _row(case: Case, name: str, text: str, plan: Plan) -> Row:
    bill, machine = plan.bill, plan.run.facts.machine
    spare = plan.margin >= SAFETY * machine.vram and plan.host_margin >= SAFETY * machine.ram
    figures: dict[str, Any] = {
        "seconds": round(bill.seconds, 3),
        "vram_gib": round(bill.peak.memory.required / GIB, 3),
        "ram_gib": round(bill.host.peak / GIB, 3),
        "fits": plan.fits,
        "spare": plan.fits and spare,
        "loss": bill.loss.word,
        "error": round(bill.loss.error, 6),
        "tiles": bill.loss.tiles,
    }
    return replace(_refused(case, name, ""), plan=text, **figures)


def _refused(case: Case, name: str, why: str) -> Row:
    return Row(case.model, case.card, case.ram, name, "", 0.0, 0.0, 0.0, False, False, "", 0.0, 0, why, program())


@cache
def program() -> str:
    """What tells two states of memplan's sources and of the contenders apart: a digest of their bytes."""
    own = [Path(__file__).with_name(name) for name in ("chart.py", "contenders.py", "parts.py", "rows.py")]
    return digest([*own, *sources()])
