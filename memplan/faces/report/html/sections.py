"""The text of the page, section by section: the words and figures of the report for terminals."""

from collections.abc import Iterable, Sequence
from html import escape

from memplan.faces.nearest import Nearest
from memplan.faces.report.bill import LEGEND, figures, margin, where, workload
from memplan.faces.report.layout import ENDLESS, TITLE, WIDTH
from memplan.faces.report.table import missing
from memplan.facts import Facts
from memplan.facts.units import amount, duration, gib, moved
from memplan.planner import Plan, Recommendation, draw
from memplan.planner.label import label
from memplan.simulator import Peak

HEADS = ("phase", "component", "weights", "copies", "activations", "allocated", "reserved", "VRAM", "RAM", "time")


def title(facts: Facts) -> str:
    """Which model on which card."""
    return escape(facts.subject)


def header(facts: Facts) -> str:
    """The model, the machine and the call."""
    before = WIDTH.set(ENDLESS)
    try:
        lines = workload(facts)
    finally:
        WIDTH.reset(before)
    rows = "".join(f"<dt>{escape(line[:TITLE].strip())}</dt><dd>{escape(line[TITLE:])}</dd>" for line in lines)
    button = '<button id="theme" type="button">Theme: as the system</button>'
    return f'<header><div class="top"><h1>{title(facts)}</h1>{button}</div><dl class="workload">{rows}</dl></header>'


def front(found: Recommendation, nearest: Nearest | None) -> str:
    """The plan that does nothing, what is missing where nothing fits, and the chart of all plans."""
    idle = draw(found.facts, ())
    verdict = "fits" if idle.fits else "does not fit"
    needs = f"Everything on the GPU needs {amount(idle.bill.peak.memory.required)} and {verdict}: {margin(idle)}."
    none = "" if found.picks else " Nothing fits; the plan that misses the least is drawn below."
    head = f'<h2>Plans</h2><p class="needs">{escape(needs + none)}</p>'
    short = () if found.picks else _missing(found.nearest, nearest)
    chart = (
        '<div class="legend" id="losses"></div><div class="chart" id="scatter"></div><p class="hint" id="point"></p>'
    )
    return f"<section>{head}{''.join(f'<p>{escape(text)}</p>' for text in short)}{chart}</section>"


def _missing(plan: Plan, nearest: Nearest | None) -> list[str]:
    """What the nearest plan is missing and, where smaller calls were looked for, what came of that."""
    sentences = [*missing(plan, nearest or Nearest(), lambda call: ", ".join(f"{n}={v}" for n, v in call.items()))]
    behind = [f"{figures(nearest.plan)}."] if nearest and nearest.plan else []
    return [*sentences, *behind] if nearest else sentences[:1]


def pick(number: int, names: Sequence[str], plan: Plan, script: str) -> str:
    """One plan: its figures, its timeline, its phases and its code."""
    bill, text = plan.bill, escape(label(plan.strategies, plan.run.facts))
    called = max((peak.host for peak in bill.peaks), default=0)
    tiles = (
        ("Time", duration(bill.seconds), "per call of a warm pipeline"),
        ("VRAM", amount(bill.peak.memory.required), margin(plan)),
        ("RAM", amount(bill.host.peak), f"{amount(called)} in the call, {moved(bill.host.pinned)} pinned"),
        ("Traffic", moved(bill.traffic.link), "over the link per call"),
        ("Loss", bill.loss.word, f"weight error {bill.loss.error:.4f}"),
    )
    shown = "".join(
        f'<div><dt>{name}</dt><dd>{escape(value)}</dd><dd class="note">{escape(note)}</dd></div>'
        for name, value, note in tiles
    )
    parts = [
        f"<h2>{escape(' and '.join(names).capitalize())}</h2>",
        f'<p class="plan"><code>{text}</code></p>',
        f'<p class="reason">{escape(plan.reason)}</p>' if plan.reason else "",
        *(f'<p class="needs">Too much: {escape(str(short))}.</p>' for short in plan.shortages),
        f'<dl class="tiles">{shown}</dl>',
        *(f'<p class="reason">Assumed: {escape(sentence)}.</p>' for sentence in plan.assumptions),
        _drawing(number, plan),
        f"<details open><summary>Phases</summary>{_phases(bill.phases)}</details>",
        f'<details open><summary>Code</summary><pre class="code">{escape(script)}</pre></details>',
    ]
    return f'<section class="pick" id="pick-{number}">{"".join(parts)}</section>'


def _drawing(number: int, plan: Plan) -> str:
    """The places of the charts, and what the highest moment is, in words."""
    highest = max(plan.bill.peaks, key=lambda p: p.memory.required, default=plan.bill.peak)
    words = f"Highest moment of the call: {amount(highest.memory.required)} in {highest.phase}, at {where(highest)}."
    if plan.bill.peak is plan.bill.loading:
        words += f" While it is loaded it takes more: {amount(plan.bill.peak.memory.required)}."
    charts = ("memory", "lanes", "ram")
    places = "".join(f'<div class="chart" id="{name}-{number}"></div>' for name in charts)
    return (
        f'<div class="phases" id="phases-{number}"></div>{places}'
        f'<p class="hint" id="moment-{number}">{escape(words)}</p><div class="legend" id="bands-{number}"></div>'
    )


def _phases(peaks: Iterable[Peak]) -> str:
    """What each phase takes at its highest, and where that is."""
    units = ("", "", *["GiB"] * 7, "s")
    heads = zip((*HEADS, "highest at"), (*units, ""), strict=True)
    head = "".join(f"<th>{name}{f'<small>{unit}</small>' if unit else ''}</th>" for name, unit in heads)
    body = "".join(map(_row, peaks))
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(peak: Peak) -> str:
    memory = peak.memory
    sizes = (peak.weights, peak.copies, peak.activations, memory.allocated, memory.reserved, memory.required, peak.host)
    texts = (peak.phase, peak.component or "(pipeline)")
    cells = [f"<td>{escape(text)}</td>" for text in texts]
    cells += [f'<td class="n">{text}</td>' for text in (*map(gib, sizes), f"{peak.seconds:.2f}")]
    cells.append(f'<td class="at">{escape(where(peak)) if peak.op else ""}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def legend() -> str:
    """What the words mean."""
    drawn = (
        "The device's memory is drawn at the highest of each stretch between two modules, for a call of a warm "
        "pipeline, and where prompts are kept for one with a new prompt. Copies are transient ones of weights, in the "
        "dtype that computes. Workspace is that of the libraries' matrix products, and what blocks are larger than the "
        "weights in them; that of single ops is in activations. Unused is what the allocator's segments are larger "
        "than the blocks in them, as it is at the highest moment of each call. While components are moved, those that "
        "come are drawn as there already, and those that go as gone. Drag to zoom, double-click to go back."
    )
    return f"<footer><p>{escape(LEGEND)}</p><p>{escape(drawn)}</p></footer>"
