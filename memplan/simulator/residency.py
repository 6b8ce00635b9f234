"""What one call of one component holds at each moment: its weights there, transient copies, and activations."""

from dataclasses import dataclass
from functools import lru_cache

from memplan.facts import Call, Component
from memplan.run import OnHost, Placement, Resident, Stored
from memplan.simulator.copies import beside, crests
from memplan.simulator.movers import stops
from memplan.simulator.tours import tour


@dataclass(frozen=True)
class Height:
    """The highest moment of a call, in bytes, and where it is; `base` of the call is not included.

    `to_device` and `to_host` are bytes that cross the link in one such call, `cast` those read and written by casts.
    `host` is what it holds in host memory beside stored weights, `host_flops` the floating-point operations that the
    CPU does in it.
    """

    weights: int
    copies: int
    activations: int
    segment: int
    to_device: int = 0
    to_host: int = 0
    cast: int = 0
    host: int = 0
    host_flops: int = 0

    @property
    def total(self) -> int:
        """Bytes held."""
        return self.weights + self.copies + self.activations


@lru_cache(maxsize=16384)
def height(component: Component, placement: Placement, stored: Stored, call: Call) -> Height:
    """The height of `call` when the weights of `component` are placed and stored like this."""
    if isinstance(placement, OnHost):
        there = height(component, Resident(), stored, call)
        held = there.copies + there.activations
        return Height(0, 0, 0, there.segment, cast=there.cast, host=held, host_flops=call.flops)
    way = tour(component, placement, stored, call)
    cut = crests(component, stored, call, stops(component, placement, stored))
    totals = [resident + crest.total for resident, crest in zip(way.resident, cut, strict=True)]
    at = totals.index(max(totals))
    cast = sum(beside(component, stored, call).traffic)
    highest = way.resident[at], cut[at].copies, cut[at].activations, cut[at].segment
    return Height(*highest, way.to_device, way.to_host, cast)
