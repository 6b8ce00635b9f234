"""What the caching allocator of PyTorch holds beside weights: activations, and what it keeps of earlier ones."""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from memplan.facts import Call, Step
from memplan.run import OnCall, OnHost, Part, Partly, Resident, Run, by_turns
from memplan.simulator.partial import away
from memplan.simulator.visits import Visit
from memplan.simulator.weights import blocks, sizes


class Held(NamedTuple):
    """Bytes during a call, weights and activations aside.

    `padding` is what blocks of whole components are larger than their weights; `reserved` is in segments that are not
    for weights, `occupied` in those of them that are in use, which the allocator can't give back.
    `graphs` are in pools of CUDA graphs, part of both.
    """

    padding: int
    reserved: int
    occupied: int
    graphs: int = 0


def turns(run: Run) -> bool:
    """Whether whole components come to the device and leave it, or all of one that is not streamed."""
    return any(isinstance(part.placement, OnCall) or by_turns(part.placement) for part in run.parts.values())


class Cache:
    """Follows the allocator through a run, step by step.

    It gives nothing back by itself, so that each call adds what it could not find among the freed blocks of those
    before it. What sends whole
    components away empties the cache then: there each call begins anew.
    """

    def __init__(self, run: Run, *, emptied: bool = False) -> None:
        """Before the pipeline's call only weights are reserved. It may be `emptied` though nothing is sent away."""
        self.run, self.trace, parts = run, run.facts.trace, run.parts.values()
        self.on_host = {part.name for part in parts if isinstance(part.placement, OnHost)}
        turning = {part.name for part in parts if by_turns(part.placement)}
        here = (part.name for part in parts if isinstance(part.placement, Resident | Partly))
        self.resident = [name for name in here if name not in turning]
        self.emptied = emptied or turns(run)
        self.held = self.known = 0
        self._slacks: dict[frozenset[str], tuple[int, int]] = {}

    def after(self, visit: Visit, graphs: int) -> Held:
        """What is held once `visit` is over, with what step caches keep, and other components' pools of `graphs`."""
        padding, slack = self._slack(visit.here) if self.trace.device == "cuda" else (0, 0)
        reserved, occupied = self._after(visit.step, visit.call)
        beside = slack + visit.kept + graphs
        return Held(padding, reserved + beside, occupied + beside, graphs)

    def _after(self, step: Step, call: Call) -> tuple[int, int]:
        """What of activations is reserved, and what is occupied."""
        if call.component in self.on_host:  # what it would have left is not counted as known
            return self.held, call.base
        if self.emptied:
            return call.base + call.reserved_alone, call.base + call.occupied_alone
        self.held += max(call.reserved - self.known, 0)
        self.known = max(self.known, self.trace.calls[step.call].reserved)
        return self.held, call.occupied

    def _slack(self, here: frozenset[str]) -> tuple[int, int]:
        """By how much blocks, and segments, exceed the bytes of the weights of residents, and of those `here`."""
        if here not in self._slacks:
            self._slacks[here] = self._slack_of({*self.resident, *here})
        return self._slacks[here]

    def _slack_of(self, whole: Iterable[str]) -> tuple[int, int]:
        padding = slack = 0
        for name in whole:
            own = _beyond(self.run.parts[name])
            padding, slack = padding + own[0], slack + own[1]
        return padding, slack


@lru_cache(maxsize=8192)
def _beyond(part: Part) -> tuple[int, int]:
    """By how much the blocks, and the segments, of the weights that stay exceed their bytes."""
    component, placement, stored = part.component, part.placement, part.stored
    gone = away(component, placement, stored)
    allocated, reserved = blocks(component, stored, gone)
    there = sum(nbytes for number, nbytes in enumerate(sizes(component, stored)) if number not in gone)
    return allocated - there, reserved - there
