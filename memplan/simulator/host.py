"""Host memory that a process takes under a plan: its weights and its libraries."""

from functools import lru_cache

from memplan.facts import MIB, Component
from memplan.run import Aside, InGroups, OnCall, OnDemand, OnHost, Part, Partly, Placement, Run, Stored
from memplan.simulator.bill import HostMemory
from memplan.simulator.partial import away, pins, streamed
from memplan.simulator.weights import anonymous, originals, pinned, sizes, tensors, total

LIBRARIES = 337 * MIB
"""Anonymous memory of a process that imported torch 2.13 without CUDA, diffusers 0.42 and transformers 5.23 and ran a
pipeline of a few KiB of weights, measured on Linux. What CUDA's own libraries take besides is not in it."""


def host_memory(run: Run) -> HostMemory:
    """Host memory of the libraries and of all weights that do not live on the device.

    Resident weights take none: safetensors are mapped from their files and not kept. Offloaded ones are ordinary
    memory after the first round trip, and what computes on the CPU reads all of its own. What lies in files by itself
    takes none, nor what comes from them on demand.
    """
    steady = peak = LIBRARIES
    held = 0
    for own in map(_with_originals, run.parts.values()):
        steady, held = steady + own.steady, held + own.pinned
        peak = max(peak + own.steady, steady - own.steady + own.peak)
    return HostMemory(steady, max(steady, peak), held)


@lru_cache(maxsize=8192)
def _with_originals(part: Part) -> HostMemory:
    own, kept = placed(part.component, part.placement, part.stored), originals(part.component, part.stored)
    return HostMemory(own.steady + kept, own.peak + kept, own.pinned)


@lru_cache(maxsize=1024)
def placed(component: Component, placement: Placement, stored: Stored) -> HostMemory:
    """Host memory of the weights of one component."""
    size = total(component, stored)
    if isinstance(placement, OnCall | Aside | OnHost):
        return HostMemory(size, size, 0)
    if isinstance(placement, OnDemand):
        own = anonymous(component, stored)
        return HostMemory(own, own, 0)
    if isinstance(placement, Partly):
        pinned_ones = pins(streamed(component, placement, stored))
        pinned_all = sum(pinned_ones)
        home = anonymous(component, stored, away(component, placement, stored)) if placement.on_demand else 0
        return HostMemory(home + pinned_all, home + pinned_all + max(pinned_ones, default=0), pinned_all)
    if not isinstance(placement, InGroups):
        return HostMemory(0, 0, 0)
    if not placement.stream:
        return HostMemory(size, size, 0)
    return _streamed(component, placement, stored, size)


def pins_at_once(placement: Placement) -> bool:
    """Whether weights are pinned when they are placed, and not for each transfer anew."""
    if isinstance(placement, Partly):
        return True
    return isinstance(placement, InGroups) and placement.stream and not placement.low_cpu_mem


def _streamed(component: Component, placement: InGroups, stored: Stored, size: int) -> HostMemory:
    """Stream mode pins each tensor by itself, all of them for good, or with `low_cpu_mem` two groups at a time."""
    grouping = component.grouping(placement.level, placement.blocks)
    groups = [g for g in grouping.groups if g.streamed] if grouping else []
    table, parts = sizes(component, stored), tensors(component, stored)
    pins = [sum(pinned(nbytes) for i in g.weights for nbytes in parts[i]) for g in groups]
    if placement.low_cpu_mem:
        pool = max((a + b for a, b in zip(pins, [*pins[1:], 0], strict=True)), default=0)
        return HostMemory(size + pool, size + pool, pool)
    kept = size - sum(table[i] for i in {i for g in groups for i in g.weights})
    steady = kept + sum(pins)
    passing = size - kept if placement.level == "block_level" else max(pins, default=0)
    return HostMemory(steady, steady + passing, sum(pins))
