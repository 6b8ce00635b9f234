"""What loading leaves on the device, and the most it takes: components moved whole, layers quantized one by one."""

from collections.abc import Iterator

from memplan.allocator import Block, Pool
from memplan.facts import Component, Weight
from memplan.run import Resident, Run
from memplan.simulator.formats import FORMATS
from memplan.simulator.movers import outside
from memplan.simulator.weights import tensors

WIDTH = 2
"""Bytes of one element of the weights that are quantized on the device, all in half precision."""
ON_THE_WAY = ("nf4", "nf4 nested", "fp4", "fp4 nested", "bnb int8")
"""The formats of bitsandbytes, whose quantizers load a component onto the device and quantize it there."""


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
    """The device once the pipeline is loaded: what bitsandbytes quantizes first, then the others one after the other.

    Components in groups leave there what no group moves.
    """
    device = Device()
    for component in sorted(run.facts.model.components, key=lambda c: run.stored(c.name).format not in ON_THE_WAY):
        placement, stored = run.placement(component.name), run.stored(component.name)
        if stored.format in ON_THE_WAY:
            _quantized_on_the_way(device, component, run)
        elif isinstance(placement, Resident):
            for part in (part for parts in tensors(component, stored) for part in parts):
                device.take(part)
        else:
            device.take(outside(component, placement, stored))
    return device


def _quantized_on_the_way(device: Device, component: Component, run: Run) -> None:
    """Each weight comes in half precision and goes once it is quantized (`Params4bit.to`, `Int8Params.to`).

    One that is kept in float32 comes like that too, and is cast.
    """
    converted = dict(_converted(component, run))
    for number, weight in enumerate(component.weights):
        made = converted.get(number, (weight.nbytes,))
        whole = device.take(WIDTH * weight.numel) if number in converted or weight.dtype == "float32" else None
        for part in reversed(made):
            device.take(part)
        if whole:
            device.give(whole)


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
    for number in stored.matrices(component) if stored.format in FORMATS else ():
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
