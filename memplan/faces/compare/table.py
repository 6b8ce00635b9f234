"""A comparison as text, as JSON and for notebooks.

The JSON is an object with schema (1; it rises when a key changes its meaning or goes), model, device, call (name ->
words), baseline and plan, equal, psnr, ssim and most (the worst of all outputs), speedup, undone, notes, and outputs.
A side holds plan, loss, failed ("" where nothing did), repeats, held, and predicted, first, steady (a list) and usual:
allocated, reserved, seconds and ram, in bytes and seconds. An output holds seed, output, item, frame, kind, equal,
most, psnr, ssim, snr, lpips and why. null is what is not known, and a PSNR or SNR of what is equal.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from statistics import fmean
from typing import Any

from memplan.faces.compare.comparison import Comparison, Side
from memplan.faces.compare.metrics import SMALLEST_FOR_LPIPS, Likeness
from memplan.faces.history.record import Figures
from memplan.faces.report.json import text
from memplan.faces.report.layout import columns, paragraph, titled
from memplan.facts import notebook
from memplan.facts.units import MIB, UNITS, mib

SCHEMA = 1
ROWS = 24
"""Outputs that the table shows; JSON has all of them."""
KEPT = 4
"""Columns of what the sides took that every terminal shows."""
FIGURES = ("psnr", "ssim", "lpips", "snr", "most")
HEAD = ("seed", "output", "PSNR dB", "SSIM", "LPIPS", "SNR dB", "difference")
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
    (*head,), *rows = _sides(found)
    sides = notebook.table(f"{found.plan.plan}: {verdict(found)}", head, rows)
    (*titles,), *outputs = _outputs(found)
    return sides + (notebook.table("Outputs", titles, outputs) if found.likeness else "")


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
    sides = (("without the plan", found.baseline), ("with the plan", found.plan))
    lines += [f"{name} calls of one seed differ by themselves" for name, side in sides if side.repeats is False]
    if found.undone is not None:
        lines.append(f"undone, it gives {'the same again' if found.undone else 'something else than before'}")
    return lines


def _notes(found: Comparison) -> list[str]:
    pictures = [one for one in found.likeness if one.kind == "picture"]
    small = any(one.lpips is not None for one in pictures) and any(one.lpips is None for one in pictures)
    sizes = f"LPIPS is not given of pictures with a side under {SMALLEST_FOR_LPIPS} pixels"
    predicted = found.plan.predicted is not None and not found.has_peaks
    elsewhere = f"predictions are those of a GPU; these calls were made on {found.device}"
    return [*found.notes, *([sizes] if small else []), *([elsewhere] if predicted else [])]


def _legend(found: Comparison) -> str:
    return LEGEND.format(PEAKS if found.has_peaks else HELD if found.baseline.held is not None else "", UNITS)


Column = tuple[str, Callable[[Side], float | None], Callable[[float], str]]


def _columns(found: Comparison) -> Iterator[Column]:
    """A title, what of a side it shows, and how; of what no side has there is no column."""
    yield "warm s", lambda side: side.usual.seconds if side.steady else None, _seconds
    yield "first s", lambda side: _of(side.first, "seconds"), _seconds
    yield "allocated", lambda side: side.usual.allocated, mib
    yield "reserved", lambda side: side.usual.reserved, mib
    yield "held", lambda side: side.held, _parts_of_mib
    yield "RAM", lambda side: side.usual.ram, mib
    yield "predicted: s", lambda side: _of(side.predicted, "seconds"), _seconds
    yield "allocated", lambda side: _of(side.predicted, "allocated"), mib
    yield "reserved", lambda side: _of(side.predicted, "reserved"), mib
    yield "RAM", lambda side: _of(side.predicted, "ram"), mib


def _of(figures: Figures | None, name: str) -> float | None:
    return getattr(figures, name) if figures else None


def _sides(found: Comparison) -> list[tuple[str, ...]]:
    """What each side took, and the change."""
    both = found.baseline, found.plan
    shown = [column for column in _columns(found) if any(column[1](side) is not None for side in both)]
    rows = [("", *(title for title, _, _ in shown))]
    for name, side in zip(("without the plan", "with the plan"), both, strict=True):
        values = [(value(side), form) for _, value, form in shown]
        rows.append((name, *("-" if one is None else form(one) for one, form in values)))
    return [*rows, ("change", *(_change(*map(value, both)) for _, value, _ in shown))]


def _change(before: float | None, after: float | None) -> str:
    return f"{after / before - 1:+.1%}" if before and after is not None else ""


def _of_sides(found: Comparison) -> list[str]:
    """On a narrow terminal without the last of the columns, which are predictions."""
    rows = _sides(found)
    last = range(len(rows[0]) - 1, KEPT, -1)
    return columns("l" + "r" * (len(rows[0]) - 1), rows, spare=list(last))


def _of_outputs(found: Comparison) -> list[str]:
    rows = _outputs(found)
    return columns("rl" + "r" * (len(rows[0]) - 2), rows)


def _outputs(found: Comparison) -> list[tuple[str, ...]]:
    """A row for each output, of a video one for the mean of its frames and one for the worst; no empty columns."""
    rows: list[tuple[str, ...]] = []
    for _, group in groupby(found.likeness, key=lambda one: (one.seed, one.output, one.item)):
        frames = list(group)
        if frames[0].frame is None or len(frames) == 1:
            rows += [_row(one, one.name) for one in frames]
        else:
            rows += list(_video(frames))
    more = len(rows) - ROWS
    left = ("", f"and {more} more", *[""] * len(FIGURES))
    shown = [HEAD, *rows[:ROWS], *([left] if more > 0 else [])]
    known = [i for i in range(len(HEAD)) if any(row[i] not in ("", "-") for row in shown[1:])]
    return [tuple(row[i] for i in known) for row in shown]


def _video(frames: Sequence[Likeness]) -> Iterator[tuple[str, ...]]:
    first, known = frames[0], [one for one in frames if not one.why]
    if first.why or all(one.equal for one in known):
        yield _row(first, f"{first.name}, {len(frames)} frames")
        return
    means = {name: _mean([getattr(one, name) for one in known]) for name in FIGURES}
    yield (str(first.seed), f"{first.name}, mean of {len(frames)}", *_figures(means))
    worst = min(known, key=lambda one: math.inf if one.psnr is None else one.psnr)
    yield _row(worst, f"the worst, frame {worst.frame}")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _row(one: Likeness, name: str) -> tuple[str, ...]:
    if one.why or one.equal:
        return (str(one.seed), name, one.why or "equal", *[""] * (len(FIGURES) - 1))
    return (str(one.seed), name, *_figures({figure: getattr(one, figure) for figure in FIGURES}))


def _figures(values: dict[str, float | None]) -> tuple[str, ...]:
    forms = {"psnr": "{:.2f}", "ssim": "{:.5f}", "lpips": "{:.4f}", "snr": "{:.2f}", "most": "{:.3g}"}
    return tuple("-" if value is None else forms[name].format(value) for name, value in values.items())


def _seconds(value: float) -> str:
    return f"{value:.2f}"


def _parts_of_mib(value: float) -> str:
    return f"{value / MIB:,.2f}"


def _side(side: Side) -> dict[str, Any]:
    return {**asdict(side), "usual": asdict(side.usual)}


def _finite(value: Any) -> Any:
    """What JSON can hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
