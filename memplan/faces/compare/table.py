"""A comparison as text, as JSON and for notebooks.

The JSON is an object with schema (1; it rises when a key changes its meaning or goes), model, device, call (name ->
words), baseline and plan, equal, psnr, ssim and most (the worst of all outputs), speedup, undone, notes, and outputs.
A side holds plan, loss, failed ("" where nothing did), repeats, held, and predicted, first, steady (a list) and usual:
allocated, reserved, seconds and ram, in bytes and seconds. An output holds seed, output, item, frame, kind, equal,
most, psnr, ssim, snr, lpips and why. null is what is not known, and a PSNR or SNR of what is equal.
"""

import math
from dataclasses import asdict
from typing import Any

from memplan.faces.compare.comparison import Comparison, Side
from memplan.faces.compare.rows import outputs, sides
from memplan.faces.report.json import text
from memplan.faces.report.layout import columns, paragraph, titled
from memplan.facts import notebook
from memplan.facts.units import UNITS

SCHEMA = 1
KEPT = 4
"""Columns of what the sides took that every terminal shows."""
LEGEND = (
    "Time in s, the median of the calls after the first; memory in MiB, the most of them. {}RAM: the most that this "
    "process held, seen every 20 ms; what is compared is kept in it. {}."
)
PEAKS = "Allocated and reserved: as torch counts them. "
HELD = "Held: the most that allocations of one call held at once beyond what was there. "
JUDGED = (
    "PSNR and SSIM (Gaussian window of 11 pixels) of pictures whose values are 0 to 1; difference: the largest of one "
    "number. "
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
    worst = {"PSNR": (found.psnr, "{:.2f} dB"), "SSIM": (found.ssim, "{:.5f}"), "difference": (found.most, "{:.3g}")}
    figures = ", ".join(f"{name} {form.format(value)}" for name, (value, form) in worst.items() if value is not None)
    return f"not equal; the worst: {figures or 'of other shapes'}; {_promised(found)}"


def _promised(found: Comparison) -> str:
    return f"loss of precision by the plan's bill: {found.plan.loss}"


# ---- parts -----------------------------------------------------------------------------------------------------------
def _checked(found: Comparison) -> list[str]:
    """What else was seen of both sides."""
    lines = [] if found.speedup is None else [f"{found.speedup:.2f} times as fast as without the plan"]
    both = (("without the plan", found.baseline), ("with the plan", found.plan))
    lines += [f"{name} calls of one seed differ by themselves" for name, side in both if side.repeats is False]
    if found.undone is not None:
        lines.append(f"undone, it gives {'the same again' if found.undone else 'something else than before'}")
    return lines


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
