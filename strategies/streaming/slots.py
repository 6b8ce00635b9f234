"""Streamed groups take turns in slots on the device, while the rest of their component computes."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from memplan.run import SLOTS

from .copiers import Copier, Slot
from .packing import Pack


class Slots:
    """The slots of one component, there while it is called.

    As many groups are copied ahead as there are slots. In which order they are called is learnt from each call for the
    next one; in the first it is taken to be that of the modules. A group that comes unexpectedly is waited for.
    """

    def __init__(self, name: str, packs: Sequence[Pack], copier: Copier, device: Any) -> None:
        """Nothing is on the device yet."""
        self.name, self.packs, self.copier, self.device = name, packs, copier, device
        self.order = list(range(len(packs)))
        self.met: list[int] = []
        self.slots: list[Slot] = []
        self.coming: deque[tuple[int, Slot]] = deque()
        self.here: dict[int, Slot] = {}
        self.ahead = 0
        self.alone = False

    def shown(self) -> set[int]:
        """The ids of the tensors that modules find in place of what is streamed."""
        return {id(weight.shown) for pack in self.packs for weight in pack.weights}

    # ---- the component ----------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """The component is called: its slots are there, and the first copies under way."""
        self.end()  # where a call was interrupted
        size = max(pack.nbytes for pack in self.packs)
        self.slots = [Slot(self.room(size)) for _ in range(min(len(self.packs), SLOTS))]
        self.ahead = 0
        for slot in self.slots:
            self._vacate(slot)

    def end(self) -> None:
        """The component returns, or fails: the slots go, and the weights are in host memory."""
        if not self.slots:
            return
        for number in list(self.here):
            self._put_back(number)
        self.copier.settle()
        self.order = self.met or self.order
        self.met, self.slots = [], []
        self.coming.clear()

    # ---- its groups -------------------------------------------------------------------------------------------------
    def enter(self, number: int) -> None:
        """A group is called: it computes in its slot."""
        if not self.slots:  # by other code than the component's own
            self.begin()
            self.alone = True
        slot = self._awaited(number)
        self.copier.arrived(slot)
        self.packs[number].on(slot.memory)
        self.here[number] = slot
        self.met.append(number)

    def leave(self, number: int) -> None:
        """A group returns: its slot is for the next one."""
        if number not in self.here:
            return
        slot = self._put_back(number)
        if self.alone:
            self.alone = False
            self.met = []
            self.end()
        else:
            self._vacate(slot)

    def _put_back(self, number: int) -> Slot:
        self.packs[number].back()
        return self.here.pop(number)

    def _awaited(self, number: int) -> Slot:
        """The slot that group `number` comes to; what was expected before it and did not come gives way."""
        passed: list[Slot] = []
        while self.coming:
            expected, slot = self.coming.popleft()
            if expected == number:
                break
            passed.append(slot)
        else:
            slot = passed.pop() if passed else self._idle(number)
            self.copier.free(slot)
            self._copy(number, slot)
            self.ahead = self._after(number)
        for other in passed:
            self._vacate(other)
        return slot

    def _idle(self, number: int) -> Slot:
        """A slot that is used by none, or one more where a group is called inside another."""
        used = [*self.here.values(), *(slot for _, slot in self.coming)]
        idle = (slot for slot in self.slots if slot not in used)
        return next(idle, None) or Slot(self.room(self.packs[number].nbytes))

    def _after(self, number: int) -> int:
        """Where in the order it goes on after group `number`."""
        return self.order.index(number) + 1 if number in self.order else self.ahead

    def _vacate(self, slot: Slot) -> None:
        """The slot is free for the next group that is not on its way yet, if there is one."""
        self.copier.free(slot)
        if self.ahead < len(self.order):
            number = self.order[self.ahead]
            self.ahead += 1
            self._copy(number, slot)
            self.coming.append((number, slot))

    def _copy(self, number: int, slot: Slot) -> None:
        self.packs[number].refresh()
        self.copier.copy(slot, self.packs[number].source)

    def room(self, nbytes: int) -> Any:
        """So many bytes on the device."""
        import torch

        return torch.empty(nbytes, dtype=torch.uint8, device=self.device)
