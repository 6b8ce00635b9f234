"""What loading leaves on the device, and the most it takes: components moved whole, layers quantized one by one."""

from collections.abc import Iterator

from memplan.allocator import Block, Pool
from memplan.facts import Component, Weight
from memplan.run import Resident, Run
from memplan.simulator.formats import FORMATS
from memplan.simulator.movers import outside
from memplan.simulator.weights import tensors

WIDTH = 2
"""Bytes of one element of the weights that were quantized on the device, all in half precision."""


class Device:
    """An allocator with what it reports: bytes `allocated` now, and the most that they were."""

    def __init__(self) -> None:
        """Nothing is there."""
        self.pool = Pool()
        self.allocated = self.peak = 0

    def take(self, nbytes: int) -> Block:
        """Allocate."""
        block = self.pool.take(nbytes)
        self.allocated += block.size
        self.peak = max(self.peak, self.allocated)
        return block

    def give(self, *blocks: Block) -> None:
        """Free."""
        for block in blocks:
            self.allocated -= block.size
            self.pool.give(block)


def moved(run: Run) -> Device:
    """The device once each component was moved there as it is stored, one after the other.

    Those in groups leave there what no group moves.
    """
    device = Device()
    for component in run.facts.model.components:
        placement, stored = run.placement(component.name), run.stored(component.name)
        if isinstance(placement, Resident):
            for part in (part for parts in tensors(component, stored) for part in parts):
                device.take(part)
        else:
            device.take(outside(component, placement, stored))
    return device


def quantized(run: Run) -> Device:
    """The device after `pipe.to("cuda")` and then torchao's `quantize_` of the components that have a format."""
    device = Device()
    components = run.facts.model.components
    blocks = {c.name: [device.take(weight.nbytes) for weight in c.weights] for c in components}
    for component in components:
        for number, parts in _converted(component, run):
            _quantize(device, component.weights[number], parts)
            device.give(blocks[component.name][number])
    return device


def _converted(component: Component, run: Run) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Number and stored tensors of each weight that is quantized."""
    stored = run.stored(component.name)
    table = tensors(component, stored)
    for number in component.matrices(stored.spared) if stored.format in FORMATS else ():
        yield number, table[number]


def _quantize(device: Device, weight: Weight, parts: tuple[int, ...]) -> None:
    """Quantize one weight: scaled, then rounded or clamped, then made small (`_quantize_affine_no_dtype_cast`)."""
    values, *scales = parts
    for part in scales:
        device.take(part)
    scaled = device.take(WIDTH * weight.numel)
    rounded = device.take(WIDTH * weight.numel)
    device.give(scaled)
    device.take(values)
    device.give(rounded)
