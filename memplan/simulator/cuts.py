"""A call cut where weights move: between two cuts nothing but work is done."""

from functools import lru_cache
from typing import NamedTuple

from memplan.facts import Call

Passage = tuple[str, int]
"""A module that is entered, or returns, and how many times over."""


class Section(NamedTuple):
    """The segments of a call from number `begin` up to `end`.

    Before the first of them the modules `enters` are entered, after the last one the modules `leaves` return; others
    that come and go are not told.
    """

    begin: int
    end: int
    enters: tuple[Passage, ...]
    leaves: tuple[Passage, ...]


@lru_cache(maxsize=1024)
def sections(call: Call, stops: frozenset[str] | None) -> tuple[Section, ...]:
    """`call` cut where modules at `stops` are entered and return, or behind every segment with all its modules."""
    enters = [_passing(call, segment.enters, segment.repeat, stops) for segment in call.segments]
    leaves = [_passing(call, segment.leaves, segment.repeat, stops) for segment in call.segments]
    count = len(call.segments)
    begins = [n for n in range(count) if not n or stops is None or enters[n] or leaves[n - 1]]
    ends = [*begins[1:], count]
    return tuple(Section(a, b, enters[a], leaves[b - 1]) for a, b in zip(begins, ends, strict=True) if a < b)


def _passing(call: Call, modules: tuple[int, ...], times: int, stops: frozenset[str] | None) -> tuple[Passage, ...]:
    paths = (call.modules[module] for module in modules)
    return tuple((path, times) for path in paths if stops is None or path in stops)
