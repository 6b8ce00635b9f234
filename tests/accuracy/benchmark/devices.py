"""What is asked of the device: a cap on its memory, peaks, and the end of its work. The CPU rehearses it."""

import gc
import resource
from dataclasses import dataclass
from typing import Protocol

import torch

from memplan.errors import BadInput
from memplan.facts import GIB, Gpu
from memplan.simulator.device import context


class Device(Protocol):
    """A device that a case runs on."""

    @property
    def name(self) -> str:
        """What torch calls it."""
        ...

    def cap(self, gib: float, gpu: Gpu | None) -> None:
        """Let this process have no more than `gib` GiB of its memory, the context included; 0 for all of it."""
        ...

    def reset(self) -> None:
        """Forget the peaks, and give back what is not in use."""
        ...

    def wait(self) -> None:
        """Return when its work is done."""
        ...

    def peaks(self) -> tuple[int | None, int | None]:
        """The most bytes that were allocated, and reserved, since reset()."""
        ...

    def outside(self) -> int | None:
        """Bytes in use on the device that the allocator does not hold: the context, and other processes."""
        ...


@dataclass(frozen=True)
class Cuda:
    """A CUDA device, as torch.cuda reports it."""

    name: str = "cuda"

    def cap(self, gib: float, gpu: Gpu | None) -> None:
        """Caps the allocator; the context, of which it knows nothing, is taken off as memplan reckons it.

        Raises BadInput for a cap that the card does not have, or that the context takes.
        """
        total = torch.cuda.get_device_properties(0).total_memory
        allowed = gib * GIB - context(gpu)
        if gib and not 0 < allowed <= total - context(gpu):
            raise BadInput(f"a cap of {gib:g} GiB is not within the {total / GIB:.2f} GiB of the card and its context")
        if gib:
            torch.cuda.set_per_process_memory_fraction(allowed / total)

    def reset(self) -> None:
        """Collects, and empties the allocator's cache."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def wait(self) -> None:
        """Synchronizes."""
        torch.cuda.synchronize()

    def peaks(self) -> tuple[int | None, int | None]:
        """max_memory_allocated and max_memory_reserved."""
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()

    def outside(self) -> int | None:
        """What the driver says is in use, less what the allocator has reserved."""
        free, total = torch.cuda.mem_get_info()
        return total - free - torch.cuda.memory_reserved()


@dataclass(frozen=True)
class Rehearsal:
    """The CPU in the place of a device: everything runs but what only a device can report."""

    name: str = "cpu"

    def cap(self, gib: float, gpu: Gpu | None) -> None:
        """Nothing to cap."""

    def reset(self) -> None:
        """Collects."""
        gc.collect()

    def wait(self) -> None:
        """Nothing is in flight."""

    def peaks(self) -> tuple[int | None, int | None]:
        """None are reported."""
        return None, None

    def outside(self) -> int | None:
        """There is none."""
        return None


DEVICES: dict[str, Device] = {device.name: device for device in (Cuda(), Rehearsal())}


def resident() -> int:
    """The most resident host memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
