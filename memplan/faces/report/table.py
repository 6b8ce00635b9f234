"""The answer as text for a terminal: the do-less plan, the picks, the front, and what was dropped."""

from collections.abc import Sequence

from memplan.faces.report.bill import LEGEND, figures, margin, phases, where, workload
from memplan.faces.report.front import others, why
from memplan.faces.report.label import label
from memplan.faces.report.layout import columns, paragraph
from memplan.faces.report.units import amount, gib, mib
from memplan.facts import Facts
from memplan.planner import Dropped, Plan, Recommendation, draw

ROWS = 12
"""How many plans beside the picks are shown, unless all are asked for."""


def recommendation(found: Recommendation, prefer: str = "balanced", *, everything: bool = False) -> str:
    """The machine, the workload, the picks and the front; with `everything` all of it, and what was dropped."""
    parts = [
        workload(found.facts),
        _do_less(found.facts),
        _picks(found, prefer),
        _front(found, prefer, None if everything else ROWS),
        _dropped(found.dropped) if everything else [],
        paragraph(LEGEND),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _do_less(facts: Facts) -> list[str]:
    """The peaks of the plan that does nothing, against which every other is judged."""
    plan = draw(facts, ())
    verdict = "fits" if plan.fits else "does not fit"
    title = f"Everything on the GPU needs {amount(plan.bill.peak.memory.required)} and {verdict}: {margin(plan)}"
    return [title, *phases(plan.bill.peaks)]


def _picks(found: Recommendation, prefer: str) -> list[str]:
    """The picks, the preferred one first; a plan that is picked twice is written out once."""
    lines, first = ["Picks"] if found.picks else [], dict[str, str]()
    for name, plan in sorted(found.picks, key=lambda pick: pick[0] != prefer):
        text = label(plan.strategies)
        same = first.setdefault(text, name)
        body = [text, figures(plan)] if same == name else [f"the same plan as {same}"]
        entry = [line for part in (*body, plan.reason) for line in paragraph(part, 12)]
        lines += [f"  {name:<10}{entry[0].lstrip()}", *entry[1:]]
    return lines


def _front(found: Recommendation, prefer: str, limit: int | None) -> list[str]:
    """The plans beside the picks, each with what it is better and worse at than the preferred one."""
    shown, fitting = others(found, limit), others(found, len(found.front))
    if not shown:
        return []
    kind = "other plans that fit" if found.picks else "plans, the nearest first"
    of = f"{len(shown):,} of {len(fitting):,}" if len(shown) < len(fitting) else f"{len(fitting):,}"
    title = f"{of} {kind} (--all shows every plan)" if limit else f"The whole front: {len(shown):,} other plans"
    head, unit = ("VRAM", "RAM", "margin", "link", "loss", ""), ("GiB", "GiB", "MiB", "GiB", "", "")
    rows = [head, unit, *(_row(plan, found.pick(prefer), prefer) for plan in shown)]
    return [title, *columns("rrrrll", rows, [paragraph(label(plan.strategies), 4, 6) for plan in shown])]


def _row(plan: Plan, pick: Plan | None, prefer: str) -> tuple[str, ...]:
    cost = plan.bill
    memory = gib(cost.peak.memory.required), gib(cost.host.peak), mib(plan.margin)
    return (*memory, gib(cost.traffic.link), cost.loss.word, why(plan, pick, prefer))


def _dropped(dropped: Sequence[Dropped]) -> list[str]:
    """What was left out, by reason."""
    reasons: dict[str, list[str]] = {}
    for item in dropped:
        reasons.setdefault(item.reason, []).append(item.what)
    lines = ["Dropped"] if dropped else []
    for reason, what in reasons.items():
        lines += [*paragraph(f"{reason}:", 2, 4), *(line for text in what for line in paragraph(text, 4, 6))]
    return lines


# ---- nothing fits ----------------------------------------------------------------------------------------------------
def nothing_fits(nearest: Plan, change: str = "", changed: Plan | None = None) -> str:
    """What is missing and where, and the nearest change of the call that would fit, as people type it."""
    lines = paragraph(f"Nothing fits. The nearest plan, {label(nearest.strategies)}, {_missing(nearest)}.")
    if not change or changed is None:
        return "\n".join([*lines, "No smaller call that was tried fits either."])
    return "\n".join([
        *lines,
        *paragraph(f"The nearest change of the call that fits is {change}, with {label(changed.strategies)}:"),
        *paragraph(figures(changed), 2),
    ])  # fmt: skip


def _missing(plan: Plan) -> str:
    peak, here = plan.bill.peak, plan.run.facts.machine
    if plan.margin < 0:
        needs = f"needs {amount(peak.memory.required)} of device memory in {peak.phase} ({where(peak)})"
        return f"{needs}, {mib(-plan.margin)} MiB more than the {amount(here.vram)} there are"
    needs = f"needs {amount(plan.bill.host.peak)} of host memory for weights"
    return f"{needs}, {mib(-plan.host_margin)} MiB more than the {amount(here.ram)} there are"
