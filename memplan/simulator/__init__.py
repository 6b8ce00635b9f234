"""Prices a run: the only arithmetic."""

from dataclasses import replace

from memplan.run import Run
from memplan.simulator.bill import Bill as Bill
from memplan.simulator.bill import HostMemory as HostMemory
from memplan.simulator.bill import Loss as Loss
from memplan.simulator.bill import Memory as Memory
from memplan.simulator.bill import Peak as Peak
from memplan.simulator.bill import Traffic as Traffic
from memplan.simulator.cache import turns as turns
from memplan.simulator.compiled import compiling
from memplan.simulator.gradients import with_gradients
from memplan.simulator.host import host_memory
from memplan.simulator.itinerary import itinerary
from memplan.simulator.loading import Arriving as Arriving
from memplan.simulator.loading import arriving as arriving
from memplan.simulator.loading import highest as highest
from memplan.simulator.loading import loading
from memplan.simulator.loss import loss
from memplan.simulator.reuse import again, kept, together
from memplan.simulator.starting import before_the_call, beside_the_first
from memplan.simulator.timeline import Stretch as Stretch
from memplan.simulator.timeline import timeline as timeline
from memplan.simulator.training import priced
from memplan.simulator.visits import moving, read_again, size
from memplan.simulator.walk import Priced, walk


def simulate(run: Run) -> Bill:
    """The bill of `run`: peak of each phase, host memory, bytes moved and loss. Pure."""
    if run.facts.training:
        return priced(run, run.facts.training)
    if run.facts.differentiable:
        return with_gradients(run, run.facts.differentiable, _simulated(run))
    nbytes = kept(run)
    return together(_simulated(run), _simulated(again(run)), nbytes) if nbytes else _simulated(run)


def emptied(run: Run) -> Bill:
    """The bill of a call of `run` if the allocator's cache were emptied before each of its calls of components.

    That is so where components take turns on the device, however many of them do. Where gradients are kept none does.
    """
    if run.facts.training or run.facts.differentiable:
        return simulate(run)
    return _simulated(run, emptied=True)


def _simulated(run: Run, *, emptied: bool = False) -> Bill:
    host, way = host_memory(run), itinerary(run)
    highest: dict[tuple[str, str], Priced] = {}
    left: dict[tuple[str, str], int] = {}
    taken: dict[tuple[str, str], float] = {}
    to_device = to_host = cast = host_flops = 0
    for each in walk(run, emptied=emptied):
        own, place, times = each.own, each.place, each.visit.step.repeat
        left[place] = max(left.get(place, 0), each.host)
        taken[place] = taken.get(place, 0.0) + each.seconds * times + each.visit.moving
        if place not in highest or highest[place].memory.required < each.memory.required:
            highest[place] = each
        to_device += own.to_device * times
        to_host += own.to_host * times
        cast += own.cast * times
        host_flops += own.host_flops * times
    gone = moving(run, (), way.back)
    if taken:
        taken[[*taken][-1]] += gone
    to_device += sum(size(run.parts[name]) for name in way.arrivals)
    to_host += sum(size(run.parts[name]) for name in way.departures)
    phases = tuple(each.peak(left[place], taken[place]) for place, each in highest.items())
    before = replace(loading(run), seconds=before_the_call(run))
    ahead_of_it = 0 if run.facts.machine.unified else before.host  # in one pool it is the device's own memory, earlier
    host = replace(host, peak=max([host.steady, ahead_of_it, *left.values()]))
    traffic, read = Traffic(to_device, to_host, cast), read_again(run, way.arrivals)
    once = {"compiling": compiling(run), "fetching": beside_the_first(run)}
    return Bill(phases, host, traffic, loss(run), host_flops=host_flops, loading=before, read_again=read, **once)
