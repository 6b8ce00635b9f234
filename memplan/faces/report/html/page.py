"""The page: text that is there without scripts, the data as JSON, and the scripts that draw it."""

from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

from memplan.faces.assembled import origin
from memplan.faces.nearest import Nearest
from memplan.faces.report import code, json
from memplan.faces.report.html import sections
from memplan.faces.report.html.template import filled
from memplan.faces.report.html.timelines import Names, drawn
from memplan.facts import Facts
from memplan.planner import Plan, Recommendation
from memplan.planner.label import label

SCRIPTS = ("uPlot.iife.min.js", "theme.js", "expand.js", "charts.js", "memory.js", "lanes.js", "front.js", "start.js")
STYLES = ("uPlot.min.css", "page.css")
MOST_PLANS = 2000
"""Points of the front at most, the fastest first."""


Drawn = tuple[list[str], Plan]
"""A plan, and what it is called."""


def page(
    found: Recommendation, call: Mapping[str, Any], prefer: str = "balanced", nearest: Nearest | None = None
) -> str:
    """The report of a recommendation as one file that needs no network.

    It holds what `--json` writes, word for word; `call` has the values of arguments that reports shorten. Where nothing
    fits, the nearest plan is drawn.
    """
    answer = json.recommendation(found, prefer, nearest=nearest)
    head = sections.front(found, nearest)
    return _page(found.facts, chosen(found, prefer), answer, call, head=head, points=front(found))


def page_of(plan: Plan, call: Mapping[str, Any]) -> str:
    """The report of one plan that was named."""
    return _page(plan.run.facts, [(["the plan"], plan)], json.bill(plan), call)


def _page(
    facts: Facts,
    drawings: Sequence[Drawn],
    answer: str,
    call: Mapping[str, Any],
    *,
    head: str = "",
    points: Sequence[Mapping[str, Any]] = (),
) -> str:
    places, source = Names(), origin(facts.model.source)
    plans = [{"names": names, "label": _label(plan), **drawn(plan, places)} for names, plan in drawings]
    picks = (sections.pick(n, names, plan, code.script(plan, source, call)) for n, (names, plan) in enumerate(drawings))
    data = {
        "answer": answer,
        "timelines": _short({"plans": plans, "places": places.texts}),
        "front": _short(points),
    }
    body = "\n".join([sections.header(facts), head, *picks, sections.legend()])
    return filled(
        sections.title(facts), body, STYLES, SCRIPTS, "\n".join(_script(name, text) for name, text in data.items())
    )


def chosen(found: Recommendation, prefer: str) -> list[Drawn]:
    """Each plan that is picked, once, with the names of its picks, the preferred one first; else the nearest plan."""
    if not found.picks:
        return [(["nearest"], found.nearest)]
    plans: dict[str, tuple[list[str], Plan]] = {}
    for name, plan in sorted(found.picks, key=lambda pick: pick[0] != prefer):
        plans.setdefault(_label(plan), ([], plan))[0].append(name)
    return list(plans.values())


def front(found: Recommendation) -> list[dict[str, Any]]:
    """The points of the front: seconds, bytes of device memory, loss, whether it fits, and which pick it is."""
    named: dict[str, list[str]] = {}
    for name, plan in found.picks:
        named.setdefault(_label(plan), []).append(name)
    plans = {_label(plan): plan for plan in (*(plan for _, plan in found.picks), *found.front)}
    return [
        {
            "label": text,
            "seconds": plan.bill.seconds,
            "required": plan.bill.peak.memory.required,
            "loss": plan.bill.loss.word,
            "fits": plan.fits,
            "picks": named.get(text, []),
        }
        for text, plan in [*plans.items()][:MOST_PLANS]
    ]


def _label(plan: Plan) -> str:
    return label(plan.strategies, plan.run.facts)


def _short(value: Any) -> str:
    return dumps(value, separators=(",", ":"), ensure_ascii=False)


def _script(name: str, text: str) -> str:
    """JSON in the page; "</" would end the script."""
    safe = text.replace("</", r"<\/")
    return f'<script type="application/json" id="{name}">\n{safe}\n</script>'
