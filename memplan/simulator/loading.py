"""Memory while a pipeline is loaded and a plan is applied to it, in the order in which both are done."""

from dataclasses import dataclass
from functools import lru_cache

from memplan.facts import Component
from memplan.run import Partly, Placement, Resident, Run, Stored
from memplan.simulator.bill import HostMemory, Memory, Peak
from memplan.simulator.device import context
from memplan.simulator.formats import FORMATS
from memplan.simulator.host import LIBRARIES, pins_at_once, placed
from memplan.simulator.partial import away
from memplan.simulator.weights import blocks, changed, originals, sizes

PHASE = "loading"
STAYS = ("bnb int8", "quanto int4")
"""The formats whose layers stay on the device: bitsandbytes' 8-bit weights do not follow a layer that is moved away;
quanto's 4-bit ones would be unpacked and packed anew."""


STAY = Resident | Partly
"""Placements of weights that go to the device when they are placed."""


def loading(run: Run) -> Peak:
    """The highest moment of loading and applying, of the host and of the device; they need not be the same.

    Weights that are mapped from their files in the right dtype take none of the host's memory. Then formats are
    converted, component by component and layer by layer, each layer on the device and back: the results are ordinary
    memory until they are placed. What is to live on the device goes there first, so that the others find room; then
    the others are placed, and what streams pin stays pinned while the next ones are.

    Where the CPU itself converts, glibc holds more than that: blocks below 32 MiB, its largest threshold for mapping
    one by itself, stay with the process until the layer is done. That is up to 9 bytes for each element in int8.
    """
    gpu = run.facts.machine.gpu
    there = gpu is not None and gpu.kind == "cpu"
    parts = {part.name: part for part in run.facts.model.components}
    held = {name: _anonymous(part) for name, part in parts.items()}
    host, making, stayed = LIBRARIES + sum(held.values()), 0, 0
    for name, stored in run.storage.items():
        done = _converted(parts[name], stored, there)
        host, making = max(host, _with(held, name, done.highest)), max(making, stayed + done.device)
        held[name], stayed = done.after, stayed + done.stays
    for name, part in sorted(parts.items(), key=lambda item: not _resident(run, item[0])):  # as they are applied
        own = _placed(part, run.placement(name), run.stored(name), held[name], there)
        host = max(host, _with(held, name, own.peak))
        held[name] = own.steady
    moved = [_moved(part, run.placement(name), run.stored(name)) for name, part in parts.items() if not there]
    weights, reserved = sum(allocated for allocated, _ in moved), sum(segments for _, segments in moved)
    memory = Memory(max(weights, making), max(reserved, making), max(reserved, making) + context(gpu))
    return Peak(PHASE, "", memory, weights, max(making - weights, 0), 0, "", "", host)


def _placed(component: Component, placement: Placement, stored: Stored, held: int, there: bool) -> HostMemory:
    """Host memory of a component that `held` so much while it is placed, and after that.

    Originals that are kept stay where they were loaded. With `low_cpu_mem` nothing is pinned before the first call.
    """
    own = placed(component, placement, stored)
    kept = 0 if component.mapped else originals(component, stored)
    if isinstance(placement, Resident):
        return HostMemory(held if there else kept, held, 0)
    if not pins_at_once(placement):
        return HostMemory(held, own.steady - own.pinned + kept, 0)
    if isinstance(placement, Partly):  # the rest goes to the device first, then each group is packed beside itself
        peak = own.steady if component.mapped and not stored.format else own.peak
        return HostMemory(own.steady + kept, max(held, peak + kept), own.pinned)
    return HostMemory(own.steady + kept, own.peak + kept, own.pinned)


def _moved(component: Component, placement: Placement, stored: Stored) -> tuple[int, int]:
    """Bytes that a component which lives on the device, or in part, takes there: allocated, and reserved."""
    return blocks(component, stored, away(component, placement, stored)) if isinstance(placement, STAY) else (0, 0)


def _resident(run: Run, name: str) -> bool:
    return isinstance(run.placement(name), Resident)


def _with(held: dict[str, int], name: str, own: int) -> int:
    """Host memory while component `name` holds `own`, or what it held before where that is more."""
    return LIBRARIES + sum(held.values()) + max(own - held[name], 0)


def _anonymous(component: Component) -> int:
    """Bytes of ordinary memory that its weights are loaded into."""
    return 0 if component.mapped else component.size


@dataclass(frozen=True)
class _Converted:
    """Ordinary memory of the host at the highest moment of a conversion and after it, and the most on the device.

    `stays` is what of that is there afterwards.
    """

    highest: int
    after: int
    device: int
    stays: int


@lru_cache(maxsize=1024)
def _converted(component: Component, stored: Stored, there: bool) -> _Converted:
    """Each weight has its original beside it until it is done; `there` it is converted in host memory itself.

    On a device the original has come there, and goes nowhere; the result goes back, or stays.
    """
    form, table = FORMATS.get(stored.format or ""), sizes(component, stored)
    held = highest = _anonymous(component)
    device = stays = 0
    on_device = stored.format in STAYS and not there
    for number in changed(component, stored):
        weight, result = component.weights[number], table[number]
        making = form.making(weight, there) if form else result
        device, stays = max(device, stays + weight.nbytes + making), stays + (result if on_device else 0)
        result -= result if on_device else 0
        highest = max(highest, held + (making if there else result))
        held += result - (0 if component.mapped or stored.original else weight.nbytes)
    return _Converted(highest, held, device if form and not there else 0, stays)
