"""Hooks that move weights, on the clock of one call."""

from dataclasses import dataclass
from functools import cached_property

from memplan.facts import SEQUENTIAL, Call, Component
from memplan.run import FromDisk, InGroups, Partly, Placement, Stored
from memplan.simulator.clock import Clock
from memplan.simulator.groups import streams
from memplan.simulator.movers import Coming, Going
from memplan.simulator.partial import Turns, streamed
from memplan.simulator.tours import Tour, tour


def hooks_of(
    clock: Clock,
    component: Component | None,
    placement: Placement,
    stored: Stored,
    call: Call,
    *,
    ahead: bool,
    whole: bool,
) -> "Hooks | Turns | None":
    """What moves weights while the call runs, or None where they stay."""
    if component is None or not isinstance(placement, InGroups | FromDisk | Partly):
        return None
    way = tour(component, placement, stored, call, ahead=ahead, whole=whole)
    if isinstance(placement, Partly):
        return Turns(clock, {group.path: group for group in streamed(component, placement, stored)}, way.cut)
    return (Streamed if streams(placement) else Hooks)(clock, placement, way)


@dataclass
class Hooks:
    """The hooks of offload groups, on the clock of one call: every copy is waited for."""

    clock: Clock
    placement: InGroups | FromDisk
    tour: Tour

    def before(self, number: int) -> None:
        """A section begins: what hooks copy before it."""
        for one in self.tour.coming[number]:
            self.clock.host += one.tensors * self._preparing
            self._come(one)

    def behind(self, number: int) -> None:
        """A section is over: what hooks copy back."""
        for one in self.tour.going[number]:
            self._go(one)

    @cached_property
    def _preparing(self) -> float:
        """Seconds in which the host issues the copy of one tensor."""
        rates = self.clock.rates
        return rates.dispatch if self.placement.level == SEQUENTIAL else rates.hook

    def _come(self, one: Coming) -> None:
        rate = self.clock.rates.disk if isinstance(self.placement, FromDisk) else self.clock.rates.to_device
        if one.now:
            self.clock.copy(one.now / rate)

    def _go(self, one: Going) -> None:
        if one.sent:
            self.clock.copy(one.sent / self.clock.rates.to_host)


class Streamed(Hooks):
    """Groups that are copied one ahead, from pinned memory.

    The host waits, when it enters a group, for the copy of that group; then it issues that of the next one and the work
    of this one, and after it waits for the device, which must not lose the group before. Source: `ModuleGroup` and
    `GroupOffloadingHook` of diffusers/hooks/group_offloading.py.
    """

    def _come(self, one: Coming) -> None:
        if one.now:
            self._copy(one.now)
        if one.hooked:
            self.clock.wait()
        if one.ahead:
            self._copy(one.ahead)

    def _go(self, one: Going) -> None:
        if one.released:
            self.clock.finish()
        super()._go(one)

    def _copy(self, nbytes: int) -> None:
        rates = self.clock.rates
        anew = isinstance(self.placement, InGroups) and self.placement.low_cpu_mem
        self.clock.prefetch(nbytes / rates.pinned, nbytes / rates.pinning if anew else 0.0)
