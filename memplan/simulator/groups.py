"""Offload groups of a component, as diffusers forms them and as they are stored."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from memplan.facts import SEQUENTIAL, Component, Group
from memplan.run import FromDisk, InGroups, Stored
from memplan.simulator.weights import group_size

ALONE = frozenset[int]()
"""What a group that shares no weight has in common with others."""


@dataclass(frozen=True, eq=False)
class Load:
    """An offload group as stored: its bytes, how many tensors it moves, and the weights that another one has too.

    One that is `kept` has a copy elsewhere while it is on the device, so that none is sent back.
    """

    nbytes: int
    tensors: int
    common: frozenset[int]
    streamed: bool
    kept: bool


@lru_cache(maxsize=64)
def loads(
    component: Component, placement: InGroups | FromDisk, stored: Stored
) -> tuple[Mapping[str, Load], Mapping[str, Load]]:
    """The groups by the module before which they come, and by the one after which they go."""
    groups = groups_of(component, placement)
    times = Counter(i for g in groups for i in set(g.weights))
    dropped, pinned = isinstance(placement, FromDisk) or placement.level == SEQUENTIAL, streams(placement)

    def load(group: Group) -> Load:
        common = frozenset(i for i in group.weights if times[i] > 1) or ALONE
        size, tensors = group_size(component, stored, group), len(group.weights)
        return Load(size, tensors, common, group.streamed, kept=dropped or (pinned and group.streamed))

    every = [(group, load(group)) for group in groups]
    return {g.onload: one for g, one in every}, {g.offload: one for g, one in every}


def streams(placement: InGroups | FromDisk) -> bool:
    """Whether groups are copied ahead."""
    return isinstance(placement, InGroups) and placement.stream


@lru_cache(maxsize=1024)
def groups_of(component: Component, placement: InGroups | FromDisk) -> tuple[Group, ...]:
    """The offload groups of `component`; a file has each of a group's tensors once."""
    grouping = component.grouping(placement.level, placement.blocks, placement.modules)
    groups = grouping.groups if grouping else ()
    if isinstance(placement, FromDisk):
        return tuple(replace(group, weights=tuple(dict.fromkeys(group.weights))) for group in groups)
    return groups
