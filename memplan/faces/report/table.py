"""The answer as text for a terminal: the do-less plan, the picks, the front, and what was dropped."""

from collections.abc import Callable, Iterator, Sequence

from memplan.faces.nearest import Change, Nearest
from memplan.faces.report.bill import figures, legend, margin, phases, workload
from memplan.faces.report.front import distinct, fitting, others, why
from memplan.faces.report.layout import columns, paragraph
from memplan.facts import FULL, LORA, Facts, Training
from memplan.facts.units import amount, gib, mib
from memplan.planner import Dropped, Plan, Recommendation, draw
from memplan.planner.label import label

SPARE = (4, 3)
"""Columns of the front that a narrow terminal does without: traffic, then margin."""
ROWS = 12
"""How many plans beside the picks are shown, unless all are asked for."""
LONG = 10.0
"""Seconds above which one decimal is enough."""
TYPED = 'A plan can be typed as it is written here: memplan price MODEL --with "PLAN" shows its bill, phase by phase.'


def recommendation(found: Recommendation, prefer: str = "balanced", *, everything: bool = False) -> str:
    """The machine, the workload, the picks and the front; with `everything` all of it, and what was dropped."""
    parts = [
        workload(found.facts),
        _do_less(found.facts),
        _picks(found, prefer),
        _front(found, prefer, None if everything else ROWS),
        _dropped(found.dropped) if everything else [],
        [*paragraph(legend(found.facts)), *paragraph(TYPED)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _do_less(facts: Facts) -> list[str]:
    """The peaks of the plan that does nothing, against which every other is judged."""
    plan = draw(facts, ())
    verdict = "fits" if plan.fits else "does not fit"
    title = f"Everything on the GPU needs {amount(plan.bill.peak.memory.required)} and {verdict}: {margin(plan)}"
    return [*paragraph(title), *phases(plan.bill.phases)]


def _picks(found: Recommendation, prefer: str) -> list[str]:
    """The picks, the preferred one first; a plan that is picked twice is written out once."""
    lines, first = ["Picks"] if found.picks else [], dict[str, str]()
    for name, plan in sorted(found.picks, key=lambda pick: pick[0] != prefer):
        text = label(plan.strategies, plan.run.facts)
        same = first.setdefault(text, name)
        body = [text, figures(plan), plan.reason]
        body = body if same == name else [f"the same plan as {same}", plan.reason]
        entry = [line for part in body for line in paragraph(part, 12)]
        lines += [f"  {name:<10}{entry[0].lstrip()}", *entry[1:]]
    return [*lines, *_assumed(found), *_final(found)]


def _assumed(found: Recommendation) -> list[str]:
    """What the picks' figures assume beside what holds for every plan, each sentence once."""
    sentences = dict.fromkeys(sentence for _, plan in found.picks for sentence in plan.assumptions)
    return [line for sentence in sentences for line in paragraph(f"Assumed: {sentence}.", 2)]


def _final(found: Recommendation) -> list[str]:
    """What of the picks cannot be undone, each sentence once."""
    named: dict[str, dict[str, None]] = {}
    for strategy in (strategy for _, plan in found.picks for strategy in plan.strategies):
        if strategy.final:
            named.setdefault(strategy.final, {})[strategy.name] = None
    return [
        line for why, names in named.items() for line in paragraph(f"{', '.join(names)} can't be undone; {why}.", 2)
    ]


def _front(found: Recommendation, prefer: str, limit: int | None) -> list[str]:
    """The plans beside the picks, each with what it is better and worse at than the preferred one."""
    shown = others(found, limit)
    if not shown:
        return []
    head, unit = ("time", "VRAM", "RAM", "margin", "traffic", "loss", ""), ("s", "GiB", "GiB", "MiB", "GiB", "", "")
    rows = [head, unit, *(_row(plan, found.pick(prefer), prefer) for plan in shown)]
    below = [paragraph(label(plan.strategies, plan.run.facts), 4, 6) for plan in shown]
    return [*_title(found, len(shown), whole=limit is None), *columns("rrrrrll", rows, below, SPARE)]


def _title(found: Recommendation, shown: int, *, whole: bool) -> list[str]:
    """How many plans there are, in which order they are shown, and what was left out."""
    order = "the fastest first" if found.picks else "the nearest first"
    if whole:
        return paragraph(f"The whole front: {shown:,} other plans, {order}")
    every = fitting(found)
    alike = len(every) - len(distinct(found))
    of = f"{shown:,} of {len(every):,}" if shown < len(every) else f"{shown:,}"
    kind = "other plans that fit" if found.picks else "plans"
    behind = "that another is ahead of in all of this, or by under 1 % with fewer techniques"
    left = f"; left out: {alike:,} {behind}" if alike else ""
    return paragraph(f"{of} {kind}, {order}{left} (--all shows every plan)")


def _row(plan: Plan, pick: Plan | None, prefer: str) -> tuple[str, ...]:
    cost = plan.bill
    memory = gib(cost.peak.memory.required), gib(cost.host.peak), mib(plan.margin)
    time = f"{cost.seconds:.1f}" if cost.seconds > LONG else f"{cost.seconds:.2f}"
    return (time, *memory, gib(cost.traffic.link), cost.loss.word, why(plan, pick, prefer))


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
def nothing_fits(plan: Plan, nearest: Nearest, typed: Callable[[Change], str]) -> str:
    """What the plan that misses least is missing and where, and which smaller calls were tried, as people type them."""
    first, *rest = missing(plan, nearest, typed)
    lines = [*paragraph(f"Nothing fits. {first}"), *(line for text in rest for line in paragraph(text))]
    return "\n".join([*lines, *(paragraph(figures(nearest.plan), 2) if nearest.plan else [])])


def _less_of_a_step(training: Training) -> list[str]:
    """What of a training step could be less."""
    heavy = training.kind == FULL and training.optimizer not in ("adamw8bit", "sgd")
    return [
        "with fewer pixels or frames",
        *_where((training.batch or 1) > 1, "with fewer samples"),
        *_where(heavy, "with adamw8bit or sgd"),
        *_where(training.kind == FULL, "as a LoRA"),
        *_where(training.kind == LORA, "beside weights that bitsandbytes loaded in 4 bits"),
    ]


def _where(so: bool, way: str) -> list[str]:
    return [way] if so else []


def _ways(ways: Sequence[str]) -> str:
    return f"{', '.join(ways[:-1])} or {ways[-1]}" if ways[1:] else ways[0]


def missing(plan: Plan, nearest: Nearest, typed: Callable[[Change], str]) -> Iterator[str]:
    """The same in sentences; behind the last of them are the figures of the nearest call's plan, where one fits."""
    short = ", and ".join(map(str, plan.shortages))
    yield f"The nearest plan, {label(plan.strategies, plan.run.facts)}, needs {short}."
    tried = ", ".join(map(typed, nearest.tried))
    if plan.run.facts.training:
        yield f"Less is held {_ways(_less_of_a_step(plan.run.facts.training))}."
    elif plan.run.facts.differentiable:
        last = plan.run.facts.differentiable.last
        less = ["with fewer pixels or frames", *_where(last is None, "with gradients of the last steps alone")]
        yield f"Less is held {_ways([*less, *_where(last != 1, 'with fewer steps that keep them')])}."
    elif nearest.weights:
        yield "The weights alone are too much in every plan, so that no smaller call would fit either."
    elif not tried:
        yield "There is no smaller call to try."
    elif nearest.change is None or nearest.plan is None:
        yield f"Smaller calls that were tried do not fit either: {tried}."
    else:
        found = f"{typed(nearest.change)}, with {label(nearest.plan.strategies, nearest.plan.run.facts)}"
        yield f"The nearest change of the call that fits is {found} (tried: {tried}):"
