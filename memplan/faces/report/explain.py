"""The closed formulas that people reckon with, beside the exact figures: where a plan's peak comes from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from memplan.faces.report.bill import where
from memplan.faces.report.front import others
from memplan.faces.report.layout import paragraph
from memplan.faces.report.table import ROWS
from memplan.facts import ITEM_SIZE, Component
from memplan.facts.units import amount, duration, gib
from memplan.planner import Plan, Recommendation, draw
from memplan.planner.label import label
from memplan.run import SLOTS, Aside, FromDisk, InGroups, OnCall, OnDemand, OnHost, Partly, Resident, Run, by_turns
from memplan.simulator.movers import outside
from memplan.simulator.partial import slots, streamed
from memplan.simulator.weights import total

STREAMED = 2
"""Groups on the device at once when the next one is copied ahead."""
PINNED = (2.5, 3.0)
"""Host memory of streamed components, as a multiple of their size, by the rule of thumb."""

HELD = Aside | OnCall | OnDemand | InGroups | OnHost
"""Placements of weights in host memory."""


@dataclass(frozen=True)
class Term:
    """One summand of a closed formula: its symbol and the bytes it stands for, at least and at most."""

    symbol: str
    low: float
    high: float


def explanation(found: Recommendation, *, everything: bool = False) -> str:
    """For the plan that does least, the picks and the plans shown beside them: formula, exact figure, and where."""
    shown = [draw(found.facts, ()), *(p for _, p in found.picks), *others(found, None if everything else ROWS)]
    plans = {label(plan.strategies, plan.run.facts): plan for plan in shown}
    lines = [
        *paragraph(
            "Closed formulas (approximate) beside the exact figures, in GiB. S: size of components, _max of the "
            "largest, _lc after layerwise casting, _q quantized; S_block, S_leaf: largest offload group; U: what "
            "block-level offload keeps on the device; S_here, S_away: what of a component stays there and what is "
            "streamed through slots; A: the most activations of any call that the device computes, in "
            "tiles or slices where the plan has them. The exact figure adds up what is there at each moment, and names "
            "the op that makes the peak."
        )
    ]
    return "\n".join([*lines, *(line for plan in plans.values() for line in ("", *_plan(plan)))])


def vram(run: Run) -> list[Term]:
    """The closed formula of the device memory."""
    components = run.facts.model.components
    resident = [c for c in components if isinstance(run.placement(c.name), Resident)]
    terms = [_sum("S", resident, run)] if resident else []
    partly = (c for c in components if _partly(run, c) and not by_turns(run.placement(c.name)))
    terms += [_term(f"S_here({c.name})", _here(run, c)) for c in partly]
    visiting = max(_visitors(run), key=lambda terms: sum(t.high for t in terms), default=[])
    activations = _activations(run)
    return [*terms, *visiting, Term("A", activations, activations)]


def ram(run: Run) -> list[Term]:
    """The closed formula of the host memory."""
    components = run.facts.model.components
    pinned = [c for c in components if _pins(run, c)]
    away = [_term(f"S_away({c.name})", _size(run, c) - _here(run, c)) for c in components if _partly(run, c)]
    kept = [c for c in components if isinstance(run.placement(c.name), HELD) and c not in pinned]
    terms = [*([_sum("S", kept, run)] if kept else []), *away]
    if pinned:
        whole = _sum("S", pinned, run)
        low, high = PINNED
        terms.append(Term(f"{low}…{high:g}·{whole.symbol}", low * whole.low, high * whole.high))
    return terms


# ---- terms -----------------------------------------------------------------------------------------------------------
def _visitors(run: Run) -> Iterator[list[Term]]:
    """What comes to the device for a while; only one of these is there at a time."""
    components = run.facts.model.components
    on_call = [c for c in components if isinstance(run.placement(c.name), OnCall | OnDemand)]
    if on_call:
        largest = max(on_call, key=lambda c: _size(run, c))
        yield [Term("S_max" + _cast(run, largest), _size(run, largest), _size(run, largest))]
    for component in components:
        placement = run.placement(component.name)
        if isinstance(placement, InGroups | FromDisk):
            yield _groups(run, component, placement)
        elif isinstance(placement, Partly):
            groups = streamed(component, placement, run.stored(component.name))
            here = [_term(f"S_here({component.name})", _here(run, component))] if placement.on_demand else []
            yield [*here, _term(f"{min(len(groups), SLOTS)}·S_slot({component.name})", slots(groups))]


def _groups(run: Run, component: Component, placement: InGroups | FromDisk) -> list[Term]:
    """U + n·S_block, or n·S_leaf; a format shrinks them as it does the whole component."""
    share = _size(run, component) / max(component.size, 1)
    streamed = isinstance(placement, InGroups) and placement.stream
    count = STREAMED if streamed else placement.blocks or 1
    times, suffix = (f"{count}·" if count > 1 else ""), f"{_cast(run, component)}({component.name})"
    if placement.level != "block_level":
        return [_term(f"{times}S_leaf{suffix}", count * component.leaf * share)]
    block = _term(f"{times}S_block{suffix}", count * max(component.blocks, default=0) * share)
    return [_term(f"U{suffix}", component.unmatched * share), block]


def _partly(run: Run, component: Component) -> bool:
    return isinstance(run.placement(component.name), Partly)


def _here(run: Run, component: Component) -> int:
    """Bytes of a component that stay on the device."""
    return outside(component, run.placement(component.name), run.stored(component.name))


def _sum(symbol: str, components: Sequence[Component], run: Run) -> Term:
    size = sum(_size(run, c) for c in components)
    cast = "".join(sorted({_cast(run, c) for c in components}))
    if len(components) == len(run.facts.model.components):
        return _term(f"{symbol}_total{cast}", size)
    return _term(f"{symbol}{cast}({', '.join(c.name for c in components)})", size)


def _term(symbol: str, size: float) -> Term:
    return Term(symbol, size, size)


def _cast(run: Run, component: Component) -> str:
    """How a symbol says in which kind of format its weights are stored."""
    stored = run.stored(component.name).format
    return "" if stored is None else "_lc" if stored in ITEM_SIZE else "_q"


def _size(run: Run, component: Component) -> int:
    return total(component, run.stored(component.name))


def _pins(run: Run, component: Component) -> bool:
    placement = run.placement(component.name)
    return isinstance(placement, InGroups) and placement.stream and not placement.low_cpu_mem


def _activations(run: Run) -> int:
    """Those of the calls as this run makes them, but for what the CPU computes."""
    trace = run.facts.trace
    there = (c for c in trace.calls if not isinstance(run.placement(c.component), OnHost))
    return max((trace.alternative(call, run.variant(call.component)).activations for call in there), default=0)


# ---- text ------------------------------------------------------------------------------------------------------------
def _plan(plan: Plan) -> list[str]:
    peak, cost = plan.bill.peak, plan.bill
    before = cost.loading.seconds if cost.loading else 0.0
    times = f"loading {duration(before)}, the first call {duration(cost.first)}, later ones {duration(cost.seconds)}"
    return [
        *paragraph(label(plan.strategies, plan.run.facts)),
        *paragraph(f"VRAM  {_formula(vram(plan.run))}; exact {amount(peak.memory.allocated)} allocated", 2, 8),
        *paragraph(f"RAM   {_formula(ram(plan.run))}; exact {amount(plan.bill.host.peak)}", 2, 8),
        *paragraph(f"peak  {peak.phase}: {where(peak)}", 2, 8),
        *paragraph(f"time  {times}", 2, 8),
    ]


def _formula(terms: Sequence[Term]) -> str:
    if not terms:
        return "minimal"
    total = Term("", sum(t.low for t in terms), sum(t.high for t in terms))
    symbols = " + ".join(t.symbol for t in terms)
    values = f"{' + '.join(map(_value, terms))} = " if len(terms) > 1 else ""
    return f"{symbols} = {values}{_value(total)} GiB"


def _value(term: Term) -> str:
    return gib(term.low) if term.low == term.high else f"{gib(term.low)}…{gib(term.high)}"
