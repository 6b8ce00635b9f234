"""One call as it goes: what it holds segment by segment, and when the device, the host and the link are busy."""

from dataclasses import dataclass, field
from functools import lru_cache

from memplan.facts import Call, Component, Rates
from memplan.run import Compiled, OnHost, Placement, Stored
from memplan.simulator.clock import Clock, Work
from memplan.simulator.copies import beside
from memplan.simulator.seconds import play, seconds
from memplan.simulator.tours import tour

Span = tuple[float, float]
"""When something begins and ends, in seconds since the call began."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A segment at its highest, until `end` in seconds since the call began.

    `weights` are those of the called component that are on the device, `copies` and `activations` as in its `Height`;
    `base` of the call is not included.
    """

    end: float
    weights: int
    copies: int
    activations: int

    @property
    def held(self) -> int:
        """Bytes of all of it."""
        return self.weights + self.copies + self.activations


@dataclass(frozen=True, eq=False)
class Course:
    """The moments of a call, one for each segment, and when the device computes, the CPU does, and the link copies.

    Compared by identity: equal calls have one course.
    """

    moments: tuple[Moment, ...]
    device: tuple[Span, ...]
    host: tuple[Span, ...]
    link: tuple[Span, ...]


@dataclass
class _Watched(Clock):
    """A clock that keeps what it was given."""

    computing: list[Span] = field(default_factory=list)
    on_cpu: list[Span] = field(default_factory=list)
    copying: list[Span] = field(default_factory=list)

    @property
    def now(self) -> float:
        """When the device, and the host that works for it, are done; the link may be ahead of them."""
        return max(self.host, self.device)

    def compute(self, work: Work) -> None:
        super().compute(work)
        self.computing.append((self.device - work.busy, self.device))

    def on_host(self, busy: float) -> None:
        super().on_host(busy)
        self.on_cpu.append((self.host - busy, self.host))

    def prefetch(self, moved: float, pinning: float) -> None:
        super().prefetch(moved, pinning)
        self.copying.append((self.link - moved, self.link))

    def follow(self, moved: float) -> None:
        super().follow(moved)
        self.copying.append((self.link - moved, self.link))

    def copy(self, moved: float) -> None:
        super().copy(moved)
        self.copying.append((self.host - moved, self.host))


@lru_cache(maxsize=256)
def course(
    component: Component | None,
    placement: Placement,
    stored: Stored,
    call: Call,
    rates: Rates,
    *,
    compiled: Compiled | None = None,
) -> Course:
    """One `call` once the pipeline is warm, the weights of `component` placed and stored like this.

    None is the pipeline's own code. A segment lasts until the device and the host are done with it, what is copied for
    it included; the last one until everything is.
    """
    clock, end = _Watched(rates), seconds(component, placement, stored, call, rates, compiled=compiled)
    every = play(clock, component, placement, stored, call, compiled=compiled, whole=False)
    ends = [min(clock.now, end) for _ in every]  # which differ in rounding
    ends[-1:] = [end]
    held = _held(component, placement, stored, call)
    found = tuple(Moment(end, *parts) for end, parts in zip(ends, held, strict=True))
    return Course(found, tuple(clock.computing), tuple(clock.on_cpu), tuple(clock.copying))


def _held(component: Component | None, placement: Placement, stored: Stored, call: Call) -> list[tuple[int, int, int]]:
    """Bytes of weights, copies and activations of each segment at its highest."""
    if isinstance(placement, OnHost):
        return [(0, 0, 0)] * len(call.segments)
    if component is None:
        return [(0, 0, segment.peak) for segment in call.segments]
    residents = tour(component, placement, stored, call, whole=False).resident
    highest = beside(component, stored, call).crests
    return [(there, crest.copies, crest.activations) for there, crest in zip(residents, highest, strict=True)]
