"""The stages in which components come to the device, each worked out once for all plans that have it in common."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from memplan.facts import Component
from memplan.run import Part, Placement, Run, Stored
from memplan.simulator.arrivals import Arrival, Device, Start, applied, start_of, stays
from memplan.simulator.partial import away
from memplan.simulator.weights import blocks


@dataclass(frozen=True)
class Stage:
    """Bytes of one component on the device: the most during a stage of its arrival, and what is there after it."""

    highest: int
    after: int


@dataclass(frozen=True)
class Stages:
    """The three stages of one component's arrival, and the most that it has reserved after the first and the last."""

    loaded: Stage
    converted: Stage
    placed: Stage
    reserved: int


@dataclass(frozen=True)
class Together:
    """Bytes on the device while a pipeline arrives: the most, what is there in the end, and reserved.

    `required` is what the device must have for it: of what was there before, and took no more, only what stays.
    """

    highest: int
    after: int
    reserved: int
    required: int


@lru_cache(maxsize=8192)
def stages(part: Part) -> Stages:
    """The arrival of a component that has a device to itself.

    What conversions reserve on the way is not in `reserved`: it serves the next one, of whichever component.
    """
    component, stored, placement, start = part.component, part.stored, part.placement, start_of(part.component)
    before, loaded, reserved, converted = _converted(component, stored, start)
    if not stays(placement):
        return Stages(loaded, converted, _placed(before, placement), reserved)
    own, segments = blocks(component, stored, away(component, placement, stored))
    placed = _placed(before, placement) if before.device.pool.reserved else Stage(own, own)  # the first that came
    return Stages(loaded, converted, placed, max(reserved, segments))


def _placed(before: Arrival, placement: Placement) -> Stage:
    arrival = before.copy()
    return _stage(arrival, lambda: arrival.place(placement))


@lru_cache(maxsize=256)
def _converted(component: Component, stored: Stored, start: Start) -> tuple[Arrival, Stage, int, Stage]:
    """An arrival that is not placed yet, its two stages, and what the first of them reserved: for every placement."""
    arrival = Arrival(Device(), component, stored, start)
    loaded = _stage(arrival, arrival.load)
    reserved = arrival.device.pool.reserved
    return arrival, loaded, reserved, _stage(arrival, arrival.convert)


def _stage(arrival: Arrival, step: Callable[[], None]) -> Stage:
    device = arrival.device
    device.peak = device.allocated
    step()
    return Stage(device.peak, device.allocated)


def together(run: Run) -> Together:
    """What all components' arrivals take, each as it is by itself, at their moments: `arrived` has them in one pool."""
    own = {name: stages(part) for name, part in run.parts.items()}
    held = {name: one.loaded.after for name, one in own.items()}
    before = highest = after = sum(held.values())
    steps = [(name, own[name].converted) for name in run.storage] + [(name, own[name].placed) for name in applied(run)]
    for name, stage in steps:
        highest = max(highest, after - held[name] + stage.highest)
        after += stage.after - held[name]
        held[name] = stage.after
    reserved = max(highest, sum(one.reserved for one in own.values()))
    return Together(highest, after, reserved, reserved if highest > before else after)
