"""The rows of a comparison: what its sides took, and how far each output of both is apart."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from statistics import fmean

from memplan.faces.compare.comparison import Comparison, Side
from memplan.faces.compare.metrics import Likeness
from memplan.faces.history.record import Figures
from memplan.facts.units import MIB, mib

ROWS = 24
"""Outputs that the table shows; JSON has all of them."""
FIGURES = ("psnr", "ssim", "lpips", "snr", "most")
FORMS = {"psnr": "{:.2f}", "ssim": "{:.5f}", "lpips": "{:.4f}", "snr": "{:.2f}", "most": "{:.3g}"}
NO_FIGURES = ("",) * (len(FIGURES) - 1)
"""Behind words that stand in place of the first."""
NEXT_TO_EQUAL = 0.99999
HEAD = ("seed", "output", "PSNR dB", "SSIM", "LPIPS", "SNR dB", "difference")
FIRST = "first s"
"""It has no change: the side without the plan comes first, and starts what a process starts but once."""
Column = tuple[str, Callable[[Side], float | None], Callable[[float], str]]
"""A title, what of a side it shows, and how."""


def _columns(found: Comparison) -> Iterator[Column]:
    """A title, what of a side it shows, and how; of what no side has there is no column."""
    yield "warm s", lambda side: side.usual.seconds if side.steady else None, _seconds
    yield FIRST, lambda side: _of(side.first, "seconds"), _seconds
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


def sides(found: Comparison) -> list[tuple[str, ...]]:
    """What each side took, and the change."""
    both = found.baseline, found.plan
    shown = [column for column in _columns(found) if any(column[1](side) is not None for side in both)]
    rows = [("", *(title for title, _, _ in shown))]
    for name, side in zip(("without the plan", "with the plan"), both, strict=True):
        values = [(value(side), form) for _, value, form in shown]
        rows.append((name, *("-" if one is None else form(one) for one, form in values)))
    changes = ("" if title == FIRST else _change(*map(value, both)) for title, value, _ in shown)
    return [*rows, ("change", *changes)]


def _change(before: float | None, after: float | None) -> str:
    return f"{after / before - 1:+.1%}" if before and after is not None else ""


def outputs(found: Comparison) -> list[tuple[str, ...]]:
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
    figured = any(one.psnr is not None and not one.equal for one in found.likeness)
    head = HEAD if figured else (*HEAD[:2], "", *HEAD[3:])  # else there are words alone, if anything
    shown = [head, *rows[:ROWS], *([left] if more > 0 else [])]
    known = [i for i in range(len(HEAD)) if any(row[i] not in ("", "-") for row in shown[1:])]
    return [tuple(row[i] for i in known) for row in shown]


def _video(frames: Sequence[Likeness]) -> Iterator[tuple[str, ...]]:
    first, known = frames[0], [one for one in frames if not one.why]
    for why, group in groupby((one for one in frames if one.why), key=lambda one: one.why):
        yield (str(first.seed), f"{first.name}, {len(list(group))} of {len(frames)} frames", why, *NO_FIGURES)
    if known and all(one.equal for one in known):
        yield _row(known[0], f"{first.name}, {len(known)} frames")
    elif known:
        means = {name: _mean(name, [getattr(one, name) for one in known]) for name in FIGURES}
        yield (str(first.seed), f"{first.name}, mean of {len(known)}", *_figures(means))
        worst = min(known, key=lambda one: math.inf if one.psnr is None else one.psnr)
        yield _row(worst, f"the worst, frame {worst.frame}")


def _mean(name: str, values: Sequence[float | None]) -> float | None:
    """The mean of the frames that have it; of PSNR that of all their pixels, as equal frames have an infinite one."""
    known = [value for value in values if value is not None]
    if name == "psnr" and known:
        return -10 * math.log10(fmean(10 ** (-value / 10) for value in known))
    return fmean(known) if known else None


def _row(one: Likeness, name: str) -> tuple[str, ...]:
    if one.why or one.equal:
        return (str(one.seed), name, one.why or "equal", *NO_FIGURES)
    return (str(one.seed), name, *_figures({figure: getattr(one, figure) for figure in FIGURES}))


def _figures(values: dict[str, float | None]) -> tuple[str, ...]:
    return tuple("-" if value is None else shown_as(name, value) for name, value in values.items())


def shown_as(name: str, value: float) -> str:
    """A figure of an output in a few digits. An SSIM below 1 is never rounded up to it."""
    if name == "ssim" and value < 1:
        value = min(value, NEXT_TO_EQUAL)
    return FORMS[name].format(value)


def _seconds(value: float) -> str:
    return f"{value:.2f}"


def _parts_of_mib(value: float) -> str:
    return f"{value / MIB:,.2f}"
