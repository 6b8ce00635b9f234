"""Memory while a pipeline is loaded and a plan is applied to it, in the order in which both are done."""

from dataclasses import dataclass
from functools import lru_cache

from memplan.facts import Component
from memplan.run import Partly, Placement, Resident, Run, Stored
from memplan.simulator.arrivals import STAYS, applied
from memplan.simulator.bill import HostMemory, Memory, Peak
from memplan.simulator.device import context
from memplan.simulator.formats import FORMATS
from memplan.simulator.host import LIBRARIES, pins_at_once, placed
from memplan.simulator.stages import together
from memplan.simulator.weights import changed, originals, sizes

PHASE = "loading"


def loading(run: Run) -> Peak:
    """The highest moment of loading and applying, of the host and of the device; they need not be the same.

    Weights that are mapped from their files in the right dtype take none of the host's memory. Then formats are
    converted, component by component and layer by layer, each layer on the device and back: the results are ordinary
    memory until they are placed; those of a component that is on the device already stay there. What is to live on the
    device goes there first, so that the others find room; then the others are placed, and what streams pin stays pinned
    while the next ones are.

    What a conversion frees goes back at once: the applier has glibc map each block by itself meanwhile.
    """
    gpu = run.facts.machine.gpu
    there = gpu is not None and gpu.kind == "cpu"
    parts = {part.name: part for part in run.facts.model.components}
    held = {name: _anonymous(part) for name, part in parts.items()}
    host = LIBRARIES + sum(held.values())
    for name, stored in run.storage.items():
        done = _converted(parts[name], stored, there)
        host = max(host, _with(held, name, done.highest))
        held[name] = done.after
    for name in applied(run):
        own = _placed(parts[name], run.placement(name), run.stored(name), held[name], there)
        host = max(host, _with(held, name, own.peak))
        held[name] = own.steady
    if there:
        return Peak(PHASE, "", Memory(0, 0, 0), 0, 0, 0, "", "", host)
    device = together(run)
    memory = Memory(device.highest, device.reserved, device.required + context(gpu))
    return Peak(PHASE, "", memory, device.after, device.highest - device.after, 0, "", "", host)


def _placed(component: Component, placement: Placement, stored: Stored, held: int, there: bool) -> HostMemory:
    """Host memory of a component that `held` so much while it is placed, and after that.

    Originals that are kept stay where they were loaded. With `low_cpu_mem` nothing is pinned before the first call.
    """
    own = placed(component, placement, stored)
    kept = 0 if _elsewhere(component) else originals(component, stored)
    if isinstance(placement, Resident):
        return HostMemory(held if there else kept, held, 0)
    if not pins_at_once(placement):
        return HostMemory(held, own.steady - own.pinned + kept, 0)
    if isinstance(placement, Partly):  # the rest goes to the device first, then each group is packed beside itself
        peak = own.steady if component.mapped and not stored.format else own.peak
        return HostMemory(own.steady + kept, max(held, peak + kept), own.pinned)
    return HostMemory(own.steady + kept, own.peak + kept, own.pinned)


def _with(held: dict[str, int], name: str, own: int) -> int:
    """Host memory while component `name` holds `own`, or what it held before where that is more."""
    return LIBRARIES + sum(held.values()) + max(own - held[name], 0)


def _anonymous(component: Component) -> int:
    """Bytes of ordinary memory that its weights are loaded into."""
    return 0 if _elsewhere(component) else component.size


def _elsewhere(component: Component) -> bool:
    """Whether its weights are in no ordinary memory of the host: mapped from files, or on the device already."""
    return component.mapped or component.on_device


@dataclass(frozen=True)
class _Converted:
    """Ordinary memory of the host at the highest moment of a conversion, and after it."""

    highest: int
    after: int


@lru_cache(maxsize=1024)
def _converted(component: Component, stored: Stored, there: bool) -> _Converted:
    """Each weight has its original beside it until it is done; `there` it is converted in host memory itself.

    On a device the original has come there, and goes nowhere; the result goes back, or stays.
    """
    form, table = FORMATS.get(stored.format or ""), sizes(component, stored)
    held = highest = _anonymous(component)
    stays = component.on_device or (stored.format in STAYS and not there)
    for number in changed(component, stored):
        weight, result = component.weights[number], 0 if stays else table[number]
        highest = max(highest, held + (form.making(weight, there) if form and there else result))
        held += result - (0 if _elsewhere(component) or stored.original else weight.nbytes)
    return _Converted(highest, held)
