"""Forwards under a step cache: calls of which parts are skipped, and what is kept from one to the next."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from math import prod

from memplan.facts import ITEM_SIZE, Call, Ops, Result, Segment
from memplan.run import Kept, Run, Shortened


class Forwards:
    """The forwards of a run, in order. What caches keep is freed when the pipeline's call ends, and not before."""

    def __init__(self, run: Run) -> None:
        """Nothing has run, and nothing is kept."""
        self._waiting = {name: iter(cached.forwards) for name, cached in run.caches.items()}
        self._kept: dict[tuple[str, str], int] = {}

    def of(self, call: Call, times: int) -> Iterator[tuple[int, Call, int]]:
        """`times` runs of `call` as they are made: how many alike in a row, the call, and bytes kept meanwhile.

        While a forward runs, what it keeps takes the place of what was kept before, so that the larger of both counts.
        """
        every = (self._next(call) for _ in range(times)) if self.cached(call) else [(call, self.kept)] * times
        for (made, kept), alike in groupby(every):
            yield sum(1 for _ in alike), made, kept

    def cached(self, call: Call) -> bool:
        """Whether a cache decides how `call` is made."""
        return call.component in self._waiting and call.method == "forward"

    def _next(self, call: Call) -> tuple[Call, int]:
        forward, before = next(self._waiting[call.component], Shortened()), self.kept
        self._kept[call.component, forward.context] = kept(call, forward.kept)
        return shortened(call, forward.skipped, halved=forward.halved), max(before, self.kept)

    @property
    def kept(self) -> int:
        """Bytes that caches keep now."""
        return sum(self._kept.values())


@lru_cache(maxsize=1024)
def kept(call: Call, what: tuple[Kept, ...]) -> int:
    """Bytes of what is kept of the results of one `call`."""
    return sum(_bytes(result, one) for one in what for result in _chosen(call.returned(one.path), one.outputs))


def _chosen(results: tuple[Result, ...], numbers: tuple[int, ...]) -> tuple[Result, ...]:
    return tuple(results[number] for number in numbers if number < len(results)) if numbers else results


def _bytes(result: Result, one: Kept) -> int:
    if not one.anew and one.dtype in ("", result.dtype):
        return result.storage // one.parts
    return prod(result.shape) // one.parts * ITEM_SIZE[one.dtype or result.dtype]


@lru_cache(maxsize=1024)
def shortened(call: Call, skipped: tuple[str, ...], *, halved: bool = False) -> Call:
    """`call` without what is done inside the modules `skipped`, their hooks included; `halved`, half of the rest.

    Half of a batch is taken to read half, weights included, and to hold as much as the whole: others hold that anyway.
    """
    if not skipped and not halved:
        return call
    left, within, absent = [], 0, {number for number, path in enumerate(call.modules) if path in skipped}
    for segment in call.segments:
        entered: list[int] = []
        for module in segment.enters:
            within += module in absent
            entered += [] if within else [module]
        working, left_here = not within, []
        for module in segment.leaves:
            left_here += [] if within else [module]
            within -= module in absent
        left.append(_part(segment, tuple(entered), tuple(left_here), working=working, halved=halved))
    return replace(call, segments=tuple(segment for segment in left if segment is not None))


def _part(
    segment: Segment, enters: tuple[int, ...], leaves: tuple[int, ...], *, working: bool, halved: bool
) -> Segment | None:
    """What is left of a segment with these boundaries; of one whose work is skipped nothing else, or None."""
    if not working:
        idle = replace(segment, enters=enters, leaves=leaves, peak=segment.live, work=(), fused=None)
        return idle if enters or leaves else None
    if not halved:
        return segment
    fused = None if segment.fused is None else tuple(map(_half, segment.fused))
    return replace(segment, work=tuple(map(_half, segment.work)), fused=fused)


def _half(ops: Ops) -> Ops:
    return replace(ops, flops=ops.flops // 2, traffic=ops.traffic // 2)
