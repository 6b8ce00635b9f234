"""Seconds that are spent once: before the first call, and in it beside its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from memplan.facts import Call, Component, Rates, Trace
from memplan.run import (
    Aside,
    FromDisk,
    InGroups,
    OnDemand,
    OnHost,
    Part,
    Partly,
    Placement,
    Resident,
    Run,
    Stored,
    by_turns,
)
from memplan.simulator.arrivals import STAYS
from memplan.simulator.chain import DOORS, Chain
from memplan.simulator.formats import FORMATS
from memplan.simulator.groups import groups_of, streams
from memplan.simulator.host import pins_at_once
from memplan.simulator.movers import outside
from memplan.simulator.partial import streamed
from memplan.simulator.seconds import taken
from memplan.simulator.visits import moving
from memplan.simulator.weights import changed, loaded, sizes


@dataclass(frozen=True)
class Site:
    """Where weights come from and go to: whether `files` have them, and whether a `link` leads to the device.

    To the CPU as a device none does. What was in memory when it was measured is in no file, and no file is in the
    system's cache.
    """

    rates: Rates
    files: bool
    link: bool

    def come(self, nbytes: int, unread: int, rate: float) -> float:
        """Seconds in which `nbytes` are copied at `rate`, `unread` of them as fast as the disk gives them."""
        return max(nbytes / rate if self.link else 0.0, unread / self.rates.disk)


@dataclass(frozen=True)
class Once:
    """Seconds of one component `before` the first call, and what its first use takes `beside` its usual time."""

    before: float
    beside: float


def before_the_call(run: Run) -> float:
    """Seconds in which the pipeline is loaded and the plan applied, component by component.

    Files are read, weights that are converted on the device go there and back, what lives there goes there, and what
    streams is pinned. Left out is what no rate is known of: what conversions compute, and files that are written. A
    file of another dtype than is loaded is taken to be as large as what is loaded.
    """
    return sum(one.before for one in _each(run).values())


def beside_the_first(run: Run) -> float:
    """Seconds that the first pipeline call takes beside a later one and beside compiling.

    Weights that nothing has touched are read from their files. Streams do not copy ahead yet in the first forward, as
    diffusers learns the order of groups in it (`LazyPrefetchGroupOffloadingHook` in hooks/group_offloading.py). Of
    components on demand another one may be there than a call leaves.
    """
    trace = run.facts.trace
    fetched = sum(one.beside for name, one in _each(run).items() if name in trace.called)
    unhidden = sum(_unhidden(part, trace) for name, part in run.parts.items() if name in trace.called)
    return fetched + unhidden + _found(run)


def _each(run: Run) -> dict[str, Once]:
    machine, live = run.facts.machine, run.facts.model.source.startswith("live")
    there = machine.gpu is not None and machine.gpu.kind == "cpu"
    return {name: _once(part, files=not live, link=not there) for name, part in run.parts.items()}


@lru_cache(maxsize=8192)
def _once(part: Part, *, files: bool, link: bool) -> Once:
    return once(part.component, part.placement, part.stored, Site(part.rates, files, link))


@lru_cache(maxsize=4096)
def once(component: Component, placement: Placement, stored: Stored, site: Site) -> Once:
    """What `component` takes once; weights that are `on_device` are so before."""
    begun = _Weights(component, stored, site)
    spent = begun.load() + begun.convert() + begun.place(placement)
    return Once(spent, begun.first_use(placement))


class _Weights:
    """The weights of one component on their way: which are `unread` in files, and which are `there` on the device."""

    def __init__(self, component: Component, stored: Stored, site: Site) -> None:
        self.component, self.stored, self.site, self.table = component, stored, site, sizes(component, stored)
        self.loaded = loaded(component)
        every = range(len(component.weights))
        self.there = set(every) if component.on_device else set[int]()
        self.unread = set(every) - self.there if site.files else set[int]()

    def load(self) -> float:
        """What is not mapped is read at once."""
        return 0.0 if self.component.mapped else self._read(self.unread) / self.site.rates.disk

    def convert(self) -> float:
        """What a quantizer converts goes to the device, and the result back, or stays; casts are the host's."""
        numbers, rates = set(changed(self.component, self.stored)) - self.there, self.site.rates
        original = sum(self.loaded[n] for n in numbers)
        if self.stored.format not in FORMATS:
            return self._read(numbers) / rates.disk
        seconds = self.site.come(original, self._read(numbers), rates.to_device)
        if self.stored.format in STAYS:
            self.there |= numbers
            return seconds
        return seconds + self._back(numbers)

    def place(self, placement: Placement) -> float:
        """What lives on the device goes there, what streams is pinned, what lives elsewhere goes back."""
        every, rates = set(range(len(self.table))), self.site.rates
        if isinstance(placement, Resident | Partly | OnDemand):  # on demand it comes at once, for the first time
            pinned = self._pinned(placement)
            there = self._back(pinned & self.there) + self._copied(pinned - self.there, rates.pinning)
            return there + (self._copied(every - pinned - self.there, rates.to_device) if self.site.link else 0.0)
        back, left = self._back(self.there), outside(self.component, placement, self.stored)
        copied = self._copied(self._pinned(placement), rates.pinning) if pins_at_once(placement) else 0.0
        copied += self._read(every) / rates.disk if isinstance(placement, FromDisk) else 0.0
        return back + copied + self.site.come(left, 0, rates.to_device)

    def first_use(self, placement: Placement) -> float:
        """What is still unread is read as it is used: how much longer that takes than from memory."""
        late, rates = self._bytes(self.unread), self.site.rates
        if isinstance(placement, Aside):
            return 0.0
        if isinstance(placement, OnHost) or not self.site.link:
            return late / rates.disk
        rate = rates.pinning if isinstance(placement, InGroups) and placement.stream else rates.to_device
        return max(late / rates.disk - late / rate, 0.0)

    def _pinned(self, placement: Placement) -> set[int]:
        """The weights that are copied into pinned memory for good."""
        if isinstance(placement, Partly):
            return {n for group in streamed(self.component, placement, self.stored) for n in group.weights}
        if not isinstance(placement, InGroups):
            return set()
        return {n for group in groups_of(self.component, placement) if group.streamed for n in group.weights}

    def _copied(self, numbers: set[int], rate: float) -> float:
        return self.site.come(self._bytes(numbers), self._read(numbers), rate)

    def _back(self, numbers: set[int]) -> float:
        return self.site.come(self._bytes(numbers), 0, self.site.rates.to_host)

    def _read(self, numbers: set[int]) -> int:
        """Bytes of those of `numbers` that nothing has read before, as they are loaded; from now on they are read."""
        now = numbers & self.unread
        self.unread = self.unread - now
        return sum(self.loaded[n] for n in now)

    def _bytes(self, numbers: set[int]) -> int:
        return sum(self.table[n] for n in numbers)


@lru_cache(maxsize=8192)
def _unhidden(part: Part, trace: Trace) -> float:
    """Seconds by which the first forward of a component takes longer whose groups are not yet copied ahead."""
    if not isinstance(part.placement, InGroups) or not streams(part.placement):
        return 0.0
    call = next((trace.alternative(call, part.ways) for call in _forwards(trace, part.component)), None)
    late, usual = (taken(part, call, ahead=ahead) if call else 0.0 for ahead in (False, True))
    return max(late - usual, 0.0)


def _forwards(trace: Trace, component: Component) -> Iterator[Call]:
    called = (trace.calls[step.call] for step in trace.timeline)
    return (call for call in called if call.component == component.name and call.method == "forward")


def _found(run: Run) -> float:
    """Seconds for the component on demand that a call finds from the one before, and the first call does not.

    Less than 0 where it is the other way round: the one that was hooked last is there, as it comes at once.
    """
    hooked = [name for name, placement in run.placements.items() if by_turns(placement)]
    if not hooked:
        return 0.0
    trace = run.facts.trace
    called = (trace.calls[step.call] for step in trace.timeline)
    name = next((call.component for call in called if call.component and call.method in DOORS), "")
    left, first = name in Chain.of(run).here, name == hooked[-1]
    return (left - first) * moving(run, [name], []) if name in hooked else 0.0
