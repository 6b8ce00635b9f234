"""The way of a component's weights through one call: what is there in each section, and what comes and goes."""

from dataclasses import dataclass, replace
from functools import lru_cache

from memplan.facts import Call, Component
from memplan.run import InGroups, Placement, Stored
from memplan.simulator.cuts import Section, sections
from memplan.simulator.movers import Coming, Going, mover_of, stops


@dataclass(frozen=True, eq=False)
class Tour:
    """The sections of a call, and of each the bytes that are there, what comes before it and what goes behind it.

    `to_device` and `to_host` are bytes moved in the whole call.
    """

    cut: tuple[Section, ...]
    resident: tuple[int, ...]
    coming: tuple[tuple[Coming, ...], ...]
    going: tuple[tuple[Going, ...], ...]
    to_device: int
    to_host: int


@lru_cache(maxsize=32)  # memory and seconds of one call are asked for one after the other
def tour(
    component: Component, placement: Placement, stored: Stored, call: Call, *, ahead: bool = True, whole: bool = True
) -> Tour:
    """The weights of `component` in `call`, cut where some move, or without `whole` behind every segment.

    Groups in streams are copied `ahead`, or not. Whether they are pinned anew each time makes no difference.
    """
    if isinstance(placement, InGroups) and placement.low_cpu_mem:
        return tour(component, replace(placement, low_cpu_mem=False), stored, call, ahead=ahead, whole=whole)
    cut = sections(call, stops(component, placement, stored) if whole else None)
    entered = [path for section in cut for path, _ in section.enters] if call.method == "forward" else []
    mover = mover_of(component, placement, stored, entered, ahead=ahead)
    resident, coming, going = list[int](), list[tuple[Coming, ...]](), list[tuple[Going, ...]]()
    for _, _, enters, leaves in cut:
        coming.append(tuple([mover.enter(path, times) for path, times in enters]))
        resident.append(mover.resident)
        going.append(tuple([mover.leave(path, times) for path, times in leaves]))
    to_device = sum(one.now + one.ahead for every in coming for one in every)
    to_host = sum(one.sent for every in going for one in every)
    return Tour(cut, tuple(resident), tuple(coming), tuple(going), to_device, to_host)
