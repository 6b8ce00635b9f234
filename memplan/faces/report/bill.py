"""The bill of one plan as text: phase by phase, then host memory, traffic and precision."""

from collections.abc import Sequence

from memplan.faces.report import hardware
from memplan.faces.report.layout import columns, paragraph, titled
from memplan.facts import Facts, Purpose
from memplan.facts.units import UNITS, amount, duration, gib, mib, moved, operations
from memplan.planner import Plan
from memplan.planner.label import label
from memplan.simulator import Bill, Peak

LEGEND = (
    "VRAM is what the card must have: the allocator's segments in use at the peak and the device context; with room "
    "to spare PyTorch reserves more. RAM holds the weights that are not on the card, but for those that stay in their "
    "files until they are called, the libraries, and pictures while they are made. Time is that of one call of a warm "
    "pipeline; that of loading reads files that are in no cache. "
    f"Traffic: bytes that cross the link between them per call. {UNITS}."
)
LEGEND_OF_A_STEP = (
    "VRAM is what the card must have: the allocator's segments in use at the peak and the device context. States are "
    "the optimizer's, and averages of weights; gradients are among the activations. Time is that of one step of the "
    f"optimizer, with all of its forwards and backwards. {UNITS}."
)

LEGEND_OF_GRADIENTS = (
    "VRAM is what the card must have: the allocator's segments in use at the peak and the device context. What is kept "
    "for the backward, and the gradients of weights, are among the activations. Time is that of one call and its "
    f"backward. {UNITS}."
)

_LEGENDS = {
    Purpose.CALLS: LEGEND,
    Purpose.TRAINING: LEGEND_OF_A_STEP,
    Purpose.GRADIENTS: LEGEND_OF_GRADIENTS,
}

SPARE = ("reserved", "copies", "activations", "weights", "allocated")
"""Columns of phases that a narrow terminal does without, the first of them first."""


def bill(plan: Plan) -> str:
    """The workload, the plan and what it costs."""
    cost = plan.bill
    totals = [
        *titled("VRAM", [f"{amount(cost.peak.memory.required)} at the highest, {margin(plan)}"]),
        *titled("RAM", [_ram(plan)]),
        *titled("Too much", [str(short) for short in plan.shortages if plan.run.facts.machine.gpu]),
        *titled("Traffic", [f"{_traffic(plan)}, per call"]),
        *(titled("CPU", [f"{operations(cost.host_flops)} computed there per call"]) if cost.host_flops else []),
        *titled(
            "Precision", [f"{cost.loss.word}: expected relative weight error {cost.loss.error:.4f}{_beside(cost)}"]
        ),
        *titled("Time", [f"{duration(cost.seconds)} per call{_new_prompt(cost)}"]),
        *titled("Loading", [_loading(plan)]),
        *(titled("First call", [_first(cost)]) if cost.first != cost.seconds else []),
    ]
    assumed = [line for text in plan.assumptions for line in titled("Assumed", [text])]
    parts = [
        [*workload(plan.run.facts), *assumed],
        titled("Plan", [label(plan.strategies, plan.run.facts)]),
        phases(cost.phases, places=True),
    ]
    return "\n\n".join("\n".join(part) for part in [*parts, totals, paragraph(legend(plan.run.facts))])


def legend(facts: Facts) -> str:
    """What the figures of a call, or of a training step, mean."""
    return _LEGENDS[facts.purpose]


def _beside(cost: Bill) -> str:
    """What is lost beside the precision of weights."""
    tiles = "; pictures are made of tiles, each normalised by itself" if cost.loss.tiles else ""
    rounded = "; attention is computed in 8 bits" if cost.loss.rounded else ""
    return tiles + rounded + ("; a step cache changes the output" if cost.loss.cached else "")


def _new_prompt(cost: Bill) -> str:
    again = cost.seconds + cost.encoding
    return f" with a prompt that is kept, {duration(again)} with a new one" if cost.encoding else ""


def _loading(plan: Plan) -> str:
    """Seconds before the first call, and what they assume and leave out."""
    run, seconds = plan.run, plan.bill.loading.seconds if plan.bill.loading else 0.0
    live = run.facts.model.source.startswith("live")
    disk = f"files in no cache, on a disk of {run.facts.machine.rates.disk / 1e9:.1f} GB/s"
    converting = "; what conversions compute is not in it" if run.storage else ""
    return f"{duration(seconds)} before the first call, {'all in memory' if live else disk}{converting}"


def _first(cost: Bill) -> str:
    """The first call, and what it takes beside a later one."""
    parts = [f"{duration(cost.compiling)} compile, as published for FLUX.1 on an H100"] if cost.compiling else []
    parts += [f"{duration(cost.fetching)} fetch weights for the first time"] if cost.fetching > 0 else []
    return ", of which ".join([duration(cost.first), " and ".join(parts)]) if parts else duration(cost.first)


def workload(facts: Facts) -> list[str]:
    """The machine, the model and the call, with what had to be assumed."""
    call = ", ".join(f"{name}={value}" for name, value in facts.trace.arguments)
    lines = [*hardware.machine(facts.machine), *hardware.model_line(facts.model), *titled("Call", [call])]
    lines += titled("Training", [_training(facts)]) if facts.training else []
    lines += titled("Gradients", [str(facts.differentiable)]) if facts.differentiable else []
    return lines + [line for text in facts.assumptions for line in titled("Assumed", [text])]


def _training(facts: Facts) -> str:
    """The step, and how much of the model it trains."""
    batch = f"; batches of {facts.training.batch}" if facts.training and facts.training.batch else ""
    trained = sum(weight.numel for weight in facts.trace.trained)
    every = sum(part.numel for part in facts.model.components)
    return f"{facts.training}{batch}; {trained:,} of {every:,} weights are trained"


def margin(plan: Plan) -> str:
    """What is left of the device memory, or what is missing."""
    if plan.run.facts.machine.gpu is None:
        return "and no GPU is visible here"
    return f"margin {mib(plan.margin)} MiB" if plan.margin >= 0 else f"{mib(-plan.margin)} MiB too many"


def figures(plan: Plan) -> str:
    """Time, memory, traffic and loss of a plan in one line."""
    cost = plan.bill
    memory = f"VRAM {amount(cost.peak.memory.required)} ({margin(plan)}), RAM {amount(cost.host.peak)}"
    there = [f"{operations(cost.host_flops)} on the CPU"] if cost.host_flops else []
    return ", ".join([duration(cost.seconds), memory, f"traffic {moved(cost.traffic.link)}", *there, cost.loss.word])


def phases(peaks: Sequence[Peak], *, places: bool = False) -> list[str]:
    """One row for each phase and component; with `places` also the module and op that make each peak."""
    shown = worth_showing(peaks)
    trains = any(peak.states for peak in shown)
    memory = ("weights", "states" if trains else "copies", "activations", "allocated", "reserved", "VRAM", "RAM")
    head = ("phase", "component", *memory, "time")
    notes = [paragraph(f"at {where(peak)}", 4, 6) if peak.op else [] for peak in shown] if places else []
    rows = [head, ("", "", *["GiB"] * 7, "s"), *(_row(p) for p in shown)]
    return columns("llrrrrrrrr", rows, notes, [head.index(name) for name in SPARE if name in head])


def where(peak: Peak) -> str:
    """The module and the op that make a peak."""
    module = ".".join(filter(None, (peak.component, peak.module))) or "the pipeline's own code"
    return f"{module}, {peak.op}" if peak.op else module


def worth_showing(peaks: Sequence[Peak]) -> list[Peak]:
    """The components' peaks, and the pipeline's own code where it is a phase of its own."""
    own = {p.phase for p in peaks if p.component}
    return [p for p in peaks if p.component or p.phase not in own]


def _row(peak: Peak) -> tuple[str, ...]:
    parts = (peak.weights, peak.copies + peak.states, peak.activations)
    memory = (peak.memory.allocated, peak.memory.reserved, peak.memory.required, peak.host)
    return (peak.phase, peak.component or "(pipeline)", *(gib(n) for n in (*parts, *memory)), f"{peak.seconds:.2f}")


def _ram(plan: Plan) -> str:
    host, over = plan.bill.host, plan.host_margin < 0
    state = f"{mib(-plan.host_margin)} MiB too many" if over else f"margin {mib(plan.host_margin)} MiB"
    held = f"{moved(host.steady)} between calls, {moved(host.pinned)} pinned"
    return f"{moved(host.peak)} at the highest, {state}; {held}"


def _traffic(plan: Plan) -> str:
    traffic = plan.bill.traffic
    there, back = moved(traffic.to_device), moved(traffic.to_host)
    return f"{there} to the device, {back} back, {moved(traffic.cast)} through casts"
