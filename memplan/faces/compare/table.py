"""A comparison as text, as JSON and for notebooks.

The JSON is an object with schema (1; it rises when a key changes its meaning or goes), model, device, call (name ->
words), baseline and plan, equal, psnr, ssim and most (the worst of all outputs), speedup (by the medians of the steady
calls), speedups (the least and the most, by their quickest and slowest), undone, notes, and outputs.
A side holds plan, loss, failed ("" where nothing did), repeats, held, and predicted, first, steady (a list) and usual:
allocated, reserved, seconds and ram, in bytes and seconds. An output holds seed, output, item, frame, kind, equal,
most, psnr, ssim, snr, lpips and why. null is what is not known, and a PSNR or SNR of what is equal.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from memplan.faces.compare.comparison import Comparison, Side
from memplan.faces.compare.rows import outputs, shown_as, sides
from memplan.faces.report.json import text
from memplan.faces.report.layout import columns, paragraph, titled
from memplan.facts import notebook
from memplan.facts.limits import EXACT
from memplan.facts.units import UNITS

SCHEMA = 1
WORST = (("psnr", "PSNR", " dB"), ("ssim", "SSIM", ""), ("most", "difference", ""))
KEPT = 4
"""Columns of what the sides took that every terminal shows."""
LEGEND = (
    "Warm s: the median of the calls after the first. First s: with what starts but once, for both sides in the calls "
    "without the plan, as they come first. Memory in MiB, the most of the warm calls. {}RAM: the most that this "
    "process held, seen every 20 ms; what is compared is kept in it. {}."
)
PEAKS = "Allocated and reserved: as torch counts them. "
HELD = "Held: the most that allocations of one call held at once beyond what was there. "
JUDGED = (
    "PSNR and SSIM (Gaussian window of 11 pixels) of pictures whose values are 0 to 1; difference: the largest of one "
    "number, which in pictures of 8 bits is 0.00392 at least. "
)


def table(found: Comparison) -> str:
    """The whole answer for a terminal."""
    parts = [
        [
            *titled("Pipeline", [f"{found.model} on {found.device}"]),
            *titled("Call", [", ".join(f"{name}={shown}" for name, shown in found.call)]),
            *titled("Plan", [found.plan.plan]),
            *titled("Against", [found.baseline.plan]),
            *titled("Result", [verdict(found), *_checked(found)]),
            *titled("Note", _notes(found)),
        ],
        _of_sides(found),
        _of_outputs(found) if found.likeness else [],
        paragraph((JUDGED if found.psnr is not None else "") + _legend(found)),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def as_json(found: Comparison) -> str:
    """The whole answer for other programs."""
    return text({
        "schema": SCHEMA,
        "model": found.model,
        "device": found.device,
        "call": dict(found.call),
        "baseline": _side(found.baseline),
        "plan": _side(found.plan),
        "equal": found.equal,
        **{name: _finite(getattr(found, name)) for name in ("psnr", "ssim", "most", "speedup")},
        "speedups": found.speedups,
        "undone": found.undone,
        "notes": _notes(found),
        "outputs": [{name: _finite(value) for name, value in asdict(one).items()} for one in found.likeness],
    })  # fmt: skip


def html(found: Comparison) -> str:
    """Two small tables: what the sides took, and the outputs."""
    both, every = sides(found), outputs(found)
    top = notebook.table(f"{found.plan.plan}: {verdict(found)}", both[0], both[1:])
    return top + (notebook.table("Outputs", every[0], every[1:]) if found.likeness else "")


def verdict(found: Comparison) -> str:
    """How far both sides are apart, in a sentence."""
    if found.plan.failed:
        return f"the plan failed: {found.plan.failed}"
    if not found.likeness:
        return "the call returned nothing that can be compared"
    if found.equal:
        return f"equal bit by bit; {_promised(found)}"
    lacking = [one for one in found.likeness if one.why]
    worst = ", ".join(
        f"{title} {shown_as(name, value)}{unit}"
        for name, title, unit in WORST
        if (value := getattr(found, name)) is not None
    )
    parts = [f"the worst: {worst}"] if worst else []
    if lacking:
        parts.append(f"{len(lacking)} of {len(found.likeness)} outputs cannot be compared: {lacking[0].why}")
    return "; ".join(["not equal", *parts, _promised(found)])


def _promised(found: Comparison) -> str:
    """What the bill says of it. It knows of precision alone: other sums, or another order of them, are none of that."""
    if found.plan.loss == EXACT and not found.equal:
        return "the plan's bill shows no loss of precision, so that it computes something else, or in another order"
    return f"loss of precision by the plan's bill: {found.plan.loss}"


# ---- parts -----------------------------------------------------------------------------------------------------------
def _checked(found: Comparison) -> list[str]:
    """What else was seen of both sides."""
    lines = [*_pace(found)]
    both = (("without the plan", found.baseline), ("with the plan", found.plan))
    lines += [f"{name} calls of one seed differ by themselves" for name, side in both if side.repeats is False]
    if found.undone is not None:
        lines.append(f"undone, it gives {'the same again' if found.undone else 'something else than before'}")
    return lines


def _pace(found: Comparison) -> Iterator[str]:
    """How fast it is, and by how much the calls of one side differ, where there are several."""
    if found.speedup is None or found.speedups is None:
        return
    said, (least, most) = f"{found.speedup:.2f} times as fast as without the plan", found.speedups
    calls = len(found.baseline.steady)
    if calls == 1:
        yield f"{said}, by one warm call each, so that it is not known how far that varies; repeats tell"
        return
    same = ", so that neither side is known to be the faster one" if least <= 1 <= most else ""
    yield f"{said} ({least:.2f} to {most:.2f} by the extremes of {calls} warm calls each){same}"


def _notes(found: Comparison) -> list[str]:
    predicted = found.plan.predicted is not None and not found.has_peaks
    elsewhere = f"predictions are those of a GPU; these calls were made on {found.device}"
    return [*found.notes, *([elsewhere] if predicted else [])]


def _legend(found: Comparison) -> str:
    return LEGEND.format(PEAKS if found.has_peaks else HELD if found.baseline.held is not None else "", UNITS)


def _of_sides(found: Comparison) -> list[str]:
    """On a narrow terminal without the last of the columns, which are predictions."""
    rows = sides(found)
    last = range(len(rows[0]) - 1, KEPT, -1)
    return columns("l" + "r" * (len(rows[0]) - 1), rows, spare=list(last))


def _of_outputs(found: Comparison) -> list[str]:
    rows = outputs(found)
    return columns("rl" + "r" * (len(rows[0]) - 2), rows)


def _side(side: Side) -> dict[str, Any]:
    return {**asdict(side), "usual": asdict(side.usual)}


def _finite(value: Any) -> Any:
    """What JSON can hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
