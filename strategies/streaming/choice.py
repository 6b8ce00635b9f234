"""Which groups of which components are worth streaming, by their facts."""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from memplan.facts import TEXT_ENCODING, Component, Facts, Grouping, Trace
from memplan.run import worth

ENOUGH = 8
"""Groups of a level from which on it is the one that is searched."""
LARGE = 1 / 10
"""The share of all weights from which on a component is worth it."""


def expert(component: Component, facts: Facts) -> bool:
    """Whether it is large and runs in several steps, as denoisers do."""
    large = component.size >= LARGE * facts.model.size and best(component) is not None
    called = {call.component for call in facts.trace.calls if call.method == "forward"}
    return large and component.name in called and TEXT_ENCODING not in facts.trace.phases(component.name)


@lru_cache(maxsize=1024)
def worthwhile(component: Component, grouping: Grouping) -> tuple[int, ...]:
    """The groups that may be streamed, by number, as the component is loaded."""
    times = Counter(number for group in grouping.groups for number in set(group.weights))
    return worth([
        sum(component.weights[n].nbytes for n in dict.fromkeys(group.weights))
        if group.onload and group.streamed and all(times[n] == 1 for n in group.weights)
        else 0
        for group in grouping.groups
    ])  # fmt: skip


@lru_cache(maxsize=1024)
def called_apart(trace: Trace, component: Component, grouping: Grouping) -> str | None:
    """The sentence about a layer of a group that is called while its group is not."""
    paths = {grouping.groups[number].onload for number in worthwhile(component, grouping)}
    for call in (call for call in trace.calls if call.component == component.name):
        owners = [next((p for p in _upwards(path) if p in paths), "") for path in call.modules]
        here: set[str] = set()
        for segment in call.segments:
            here |= {owners[module] for module in segment.enters if owners[module] == call.modules[module]}
            module = next((m for m in segment.enters if owners[m] and owners[m] not in here), None)
            if module is not None:
                return f"{component.class_name} calls {call.modules[module]} apart from {owners[module]}"
            here -= {call.modules[module] for module in segment.leaves}
    return None


def _upwards(path: str) -> Iterator[str]:
    """A module's path, and those of the modules around it."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def best(component: Component) -> Grouping | None:
    """Blocks where there are enough of them, also inside named modules; else leaves."""
    blocks = [g for g in component.groupings if (g.level, g.blocks) == ("block_level", 1)]
    enough = (g for g in blocks if len(worthwhile(component, g)) >= ENOUGH)
    return next(enough, None) or component.grouping("leaf_level") or next(iter(blocks), None)
