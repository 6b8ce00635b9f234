"""What brings a streamed group to the device while others compute: a stream of the device, or a thread of the host."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

Bytes = Any
"""A flat tensor of bytes."""


@dataclass(eq=False)
class Slot:
    """A place on the device for one group at a time; `sign` is what a copier left there to know it by."""

    memory: Bytes
    sign: Any = None


class Copier(Protocol):
    """Copies ahead. A slot is given in turn to `copy`, `arrived` and `free`; `settle` ends whatever is under way."""

    def free(self, slot: Slot) -> None:
        """What was issued so far is the last that reads the slot."""

    def copy(self, slot: Slot, source: Bytes) -> None:
        """Begin to fill the slot once it is free. The caller does not wait."""

    def arrived(self, slot: Slot) -> None:
        """What is issued from here on finds the slot filled."""

    def settle(self) -> None:
        """What is issued from here on finds no copy under way."""

    def finish(self) -> None:
        """The caller waits for all copies, so that what they read can go."""


class OnStream:
    """Copies on a stream of its own; the device waits, by events, and the host never does."""

    def __init__(self, device: Any) -> None:
        """A stream of `device`, which has to be CUDA's or ROCm's."""
        import torch

        self._device = torch.device(device)
        self._side = torch.cuda.Stream(self._device)

    def _computing(self) -> Any:
        import torch

        return torch.cuda.current_stream(self._device)

    def free(self, slot: Slot) -> None:
        """The copy that follows waits for what the device was given to compute."""
        slot.sign = self._computing().record_event()

    def copy(self, slot: Slot, source: Bytes) -> None:
        """From pinned memory, so that it runs beside what the device computes."""
        import torch

        self._side.wait_event(slot.sign)
        with torch.cuda.stream(self._side):
            slot.memory[: source.numel()].copy_(source, non_blocking=True)
        slot.sign = self._side.record_event()

    def arrived(self, slot: Slot) -> None:
        """The device waits for the copy before it goes on."""
        self._computing().wait_event(slot.sign)

    def settle(self) -> None:
        """The device waits for all copies, so that slots can be given back to PyTorch's allocator."""
        self._computing().wait_stream(self._side)

    def finish(self) -> None:
        """The host waits, this once."""
        self._side.synchronize()


class OnThread:
    """Copies in a thread, for a device whose work is done when a call returns: the CPU."""

    def __init__(self, move: Callable[[Bytes, Bytes], Any] | None = None) -> None:
        """`move` fills its first argument from its second; by default it copies."""
        self._move = move or (lambda memory, source: memory.copy_(source))
        self._thread: ThreadPoolExecutor | None = None

    def free(self, slot: Slot) -> None:
        """The work is done already."""

    def copy(self, slot: Slot, source: Bytes) -> None:
        """One copy after the other, behind the caller's back."""
        self._thread = self._thread or ThreadPoolExecutor(1, "copies")
        slot.sign = self._thread.submit(self._move, slot.memory[: source.numel()], source)

    def arrived(self, slot: Slot) -> None:
        """The caller waits. Raises what the copy raised."""
        slot.sign.result()

    def settle(self) -> None:
        """The caller waits for all copies, and the thread ends."""
        if self._thread:
            self._thread.shutdown(wait=True)
        self._thread = None

    def finish(self) -> None:
        """None outlives its call."""
        self.settle()


def copier(device: str) -> Copier:
    """What copies to `device`."""
    import torch

    return OnStream(device) if torch.device(device).type == "cuda" else OnThread()
