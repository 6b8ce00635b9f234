"""Fewer points for the same picture: of moments that lie close together the highest and the lowest."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from memplan.simulator.course import Moment, Span


def thinned(moments: Sequence[Moment], most: int) -> list[tuple[int, float]]:
    """Which moments are drawn, by number, each with the second until which it is.

    Those that are equal in a row are one. Where that leaves more than `most`, time is cut into half as many slices, and
    of each slice its lowest and its highest moment stand for all: no peak is lost.
    """
    runs = [list(run) for _, run in groupby(range(len(moments)), key=lambda n: _parts(moments[n]))]
    kept = [(run[0], moments[run[-1]].end) for run in runs]
    if len(kept) <= most:
        return kept
    width = moments[-1].end / max(most // 2, 1) or 1.0
    slices = (list(part) for _, part in groupby(kept, key=lambda item: int(item[1] / width)))
    return [item for part in slices for item in _ends(moments, part)]


def _parts(moment: Moment) -> tuple[int, int, int]:
    return moment.weights, moment.copies, moment.activations


def _ends(moments: Sequence[Moment], part: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The lowest and the highest of `part` in their order, the last of them until the end of it."""
    highest = max(part, key=lambda item: moments[item[0]].held)
    lowest = min(part, key=lambda item: moments[item[0]].held)
    first, last = sorted((highest, lowest))
    return [first, (last[0], part[-1][1])] if first != last else [(first[0], part[-1][1])]


def shares(spans: Iterable[Span], seconds: float, slices: int) -> list[float]:
    """Which share of each of so many equal slices of `seconds` the spans take; spans do not overlap."""
    busy, width = [0.0] * slices, seconds / slices
    if not width:
        return busy
    for begin, end in spans:
        for number in range(min(int(begin / width), slices - 1), min(int(end / width), slices - 1) + 1):
            busy[number] += max(min(end, (number + 1) * width) - max(begin, number * width), 0.0)
    return [round(min(part / width, 1.0), 3) for part in busy]
