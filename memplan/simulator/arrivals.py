"""What comes to the device while a pipeline is loaded and a plan is applied, allocation by allocation."""

from collections.abc import Iterator
from enum import Enum

from memplan.allocator import Block, Pool
from memplan.facts import ITEM_SIZE, Component
from memplan.run import Partly, Placement, Resident, Run, Stored, by_turns
from memplan.simulator.formats import FORMATS
from memplan.simulator.movers import outside
from memplan.simulator.partial import away
from memplan.simulator.weights import changed, tensors

STAYS = ("bnb int8", "quanto int4")
"""The formats whose layers stay on the device: bitsandbytes' 8-bit weights do not follow a layer that is moved away;
quanto's 4-bit ones would be unpacked and packed anew."""
ON_THE_WAY = ("nf4", "nf4 nested", "fp4", "fp4 nested", "bnb int8")
"""The formats of bitsandbytes, whose loaders bring a component to the device and quantize it there."""
HALF = ITEM_SIZE["bfloat16"]
"""Bytes of an element of what those loaders bring."""


class Start(Enum):
    """Where the weights of a component are before a plan is applied to it, and who converts them.

    In host memory a layer comes to the device to be converted, and goes back. On the device it is converted in place.
    A loader, from_pretrained() with a quantization config, quantizes on its own: bitsandbytes' each weight as it comes
    to the device, the others' before anything comes.
    """

    HOST = "host"
    DEVICE = "device"
    LOADER = "loader"


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

    def copy(self) -> tuple["Device", dict[Block, Block]]:
        """An equal device, and which block of it stands for which."""
        other = Device()
        other.pool, twins = self.pool.copy()
        other.allocated, other.peak = self.allocated, self.peak
        return other, twins


def arrived(run: Run, start: Start | None = None) -> Device:
    """The device once everything is loaded, converted and placed, in that order, with the most that it took.

    All components start at `start`, or each where it was measured.
    """
    device = Device()
    arrivals = {
        part.name: Arrival(device, part, run.stored(part.name), start or start_of(part))
        for part in run.facts.model.components
    }
    for arrival in arrivals.values():
        arrival.load()
    for name in run.storage:
        arrivals[name].convert()
    for name in applied(run):
        arrivals[name].place(run.placement(name))
    return device


def start_of(component: Component) -> Start:
    """Where the weights of `component` were when it was measured."""
    return Start.DEVICE if component.on_device else Start.HOST


def applied(run: Run) -> Iterator[str]:
    """The components in the order in which they are placed: those that live on the device go there first."""
    yield from sorted(run.parts, key=lambda name: not isinstance(run.parts[name].placement, Resident))


def stays(placement: Placement) -> bool:
    """Whether weights, or some of them, go to the device when they are placed, and stay there."""
    return isinstance(placement, Resident | Partly) and not by_turns(placement)


class Arrival:
    """The weights of one component on their way to a `device`: loaded, then converted, then placed."""

    def __init__(self, device: Device, component: Component, stored: Stored, start: Start) -> None:
        """Nothing of it is there."""
        self.device, self.component, self.stored, self.start = device, component, stored, start
        self.blocks: dict[int, list[Block]] = {}
        self.table = tensors(component, stored)

    def copy(self) -> "Arrival":
        """The same weights as far on their way to an equal device."""
        device, twins = self.device.copy()
        other = Arrival(device, self.component, self.stored, self.start)
        other.blocks = {number: [twins[block] for block in own] for number, own in self.blocks.items()}
        return other

    def load(self) -> None:
        """What is on the device from the start comes there, or what a loader quantizes there."""
        if self.start is Start.DEVICE:
            self.blocks = {n: [self.device.take(w.nbytes)] for n, w in enumerate(self.component.weights)}
        elif self.start is Start.LOADER and self.stored.format in ON_THE_WAY:
            self._quantized_on_the_way()

    def _quantized_on_the_way(self) -> None:
        """Each weight comes in half precision and goes once it is quantized (`Params4bit.to`, `Int8Params.to`).

        One that is kept in float32 comes like that too, and is cast.
        """
        converted = set(changed(self.component, self.stored))
        for number, weight in enumerate(self.component.weights):
            halved = number in converted or weight.dtype == "float32"
            whole = [self.device.take(HALF * weight.numel)] if halved else []
            self.blocks[number] = self._made(number) if number in converted else self._taken(number)
            self.device.give(*whole)

    def convert(self) -> None:
        """Each weight has its original beside it until it is done; one that came for that goes back, or stays.

        Casts of what is in host memory are made there.
        """
        if self.start is Start.LOADER or (self.start is Start.HOST and self.stored.format not in FORMATS):
            return
        for number in changed(self.component, self.stored):
            whole = self.blocks.get(number) or [self.device.take(self.component.weights[number].nbytes)]
            made = self._made(number)
            if not (self.start is Start.DEVICE and self.stored.original):
                self.device.give(*whole)
            if self.start is Start.DEVICE or self.stored.format in STAYS:
                self.blocks[number] = made
            else:
                self.device.give(*made)

    def place(self, placement: Placement) -> None:
        """What lives on the device and is not there comes as it is stored; what does not, goes.

        Components in groups leave there what no group moves.
        """
        if stays(placement):
            elsewhere = away(self.component, placement, self.stored)
            self.device.give(*(block for n in elsewhere for block in self.blocks.pop(n, ())))
            missing = [n for n in range(len(self.table)) if n not in self.blocks and n not in elsewhere]
            self.blocks |= {n: self._taken(n) for n in missing}
            return
        self.device.give(*(block for own in self.blocks.values() for block in own))
        left = 0 if by_turns(placement) else outside(self.component, placement, self.stored)
        self.blocks = {0: [self.device.take(left)]} if left else {}

    def _taken(self, number: int) -> list[Block]:
        return [self.device.take(part) for part in self.table[number]]

    def _made(self, number: int) -> list[Block]:
        """The result of a conversion, beside which stands for a moment what it takes to make it."""
        form, parts = FORMATS.get(self.stored.format or ""), self.table[number]
        passing = form.making(self.component.weights[number], False) - sum(parts) if form else 0
        made = [self.device.take(part) for part in reversed(parts)]
        if passing > 0:
            self.device.give(self.device.take(passing))
        return made
