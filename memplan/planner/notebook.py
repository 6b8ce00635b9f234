"""What a notebook shows of a plan and of a recommendation: small tables."""

from typing import TYPE_CHECKING

from memplan.facts.notebook import table
from memplan.facts.units import amount, duration, gib

if TYPE_CHECKING:
    from memplan.planner.plan import Plan, Recommendation

PHASES = ("phase", "component", "weights GiB", "copies GiB", "activations GiB", "VRAM GiB", "RAM GiB", "seconds")
PICKS = ("pick", "plan", "time", "VRAM", "RAM", "traffic", "loss")


def plan(shown: "Plan") -> str:
    """The peak of each phase, with the totals above."""
    rows = [
        (
            peak.phase,
            peak.component or "(pipeline)",
            *map(gib, (peak.weights, peak.copies, peak.activations, peak.memory.required, peak.host)),
            f"{peak.seconds:.2f}",
        )
        for peak in shown.bill.phases
    ]
    return table(f"{shown}: {shown.bill.totals}{'' if shown.fits else ', does not fit'}", PHASES, rows)


def recommendation(found: "Recommendation") -> str:
    """The picks, or where nothing fits the plan that misses the least."""
    nearest = (("nearest", found.nearest),) if found.front else ()
    caption = f"{found.facts.subject}: {len(found.front):,} plans{'' if found.picks else ', none of which fits'}"
    return table(caption, PICKS, (_pick(name, one) for name, one in found.picks or nearest))


def _pick(name: str, one: "Plan") -> tuple[str, ...]:
    bill = one.bill
    memory = amount(bill.peak.memory.required), amount(bill.host.peak), amount(bill.traffic.link)
    return name, str(one), duration(bill.seconds), *memory, bill.loss.word
