"""Memory while a pipeline is loaded and a plan is applied to it, in the order in which both are done."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from memplan.facts import Component
from memplan.run import Part, Partly, Placement, Resident, Run, Stored
from memplan.simulator.arrivals import STAYS, applied
from memplan.simulator.bill import HostMemory, Memory, Peak
from memplan.simulator.device import context
from memplan.simulator.formats import FORMATS
from memplan.simulator.host import LIBRARIES, pins_at_once, placed
from memplan.simulator.stages import together
from memplan.simulator.weights import changed, originals, sizes

PHASE = "loading"


@dataclass(frozen=True)
class Arriving:
    """Ordinary memory of the host that the weights of one component take on their way, in bytes.

    Once `loaded`; the most while they are converted, and when they are `converted`; the most while they are `placing`,
    and when they are `placed`. What is `resident` is placed before the others.
    """

    loaded: int
    converting: int
    converted: int
    placing: int
    placed: int
    resident: bool


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
    host = highest(arriving(run), run.storage)
    if _there(run):
        return Peak(PHASE, "", Memory(0, 0, 0), 0, 0, 0, "", "", host)
    device = together(run)
    memory = Memory(device.highest, device.reserved, device.required + context(gpu))
    return Peak(PHASE, "", memory, device.after, device.highest - device.after, 0, "", "", host)


def arriving(run: Run) -> dict[str, Arriving]:
    """What each component takes of host memory on its way, by name, in the order in which they are placed."""
    there = _there(run)
    return {name: _arriving(run.parts[name], there) for name in applied(run)}


def highest(parts: Mapping[str, Arriving], converted: Iterable[str]) -> int:
    """The most host memory that these components take together, converted in one order and placed in their own."""
    held = {name: part.loaded for name, part in parts.items()}
    host = every = LIBRARIES + sum(held.values())
    for name in converted:
        host = max(host, every, every - held[name] + parts[name].converting)
        every += parts[name].converted - held[name]
        held[name] = parts[name].converted
    for name, part in parts.items():
        host = max(host, every, every - held[name] + part.placing)
        every += part.placed - held[name]
    return host


def _there(run: Run) -> bool:
    """Whether the device is the host itself."""
    gpu = run.facts.machine.gpu
    return gpu is not None and gpu.kind == "cpu"


@lru_cache(maxsize=8192)
def _arriving(part: Part, there: bool) -> Arriving:
    component, placement, stored = part.component, part.placement, part.stored
    loaded, done = _anonymous(component), _converted(component, stored, there)
    own = _placed(component, placement, stored, done.after, there)
    return Arriving(loaded, done.highest, done.after, own.peak, own.steady, isinstance(placement, Resident))


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
