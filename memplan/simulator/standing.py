"""Device memory where all weights stay on the device, and the rest is in segments of its own."""

from collections.abc import Iterable

from memplan.allocator import Pool
from memplan.run import Run
from memplan.simulator.bill import Memory
from memplan.simulator.device import blas_workspace, context


def taken(tensors: Iterable[int], run: Run) -> tuple[int, int]:
    """Bytes in blocks and in segments that the allocator of this kind of device has for tensors, one after another."""
    if run.facts.trace.device == "cpu":
        return (total := sum(tensors)), total
    pool = Pool()
    return sum(pool.take(nbytes).size for nbytes in tensors if nbytes), pool.reserved


def memory_of(run: Run, stays: tuple[int, int], allocated: int, reserved: int, occupied: int) -> Memory:
    """What is held with all that `stays`, in blocks and in segments, and beside it: all but what libraries take."""
    gpu = run.facts.machine.gpu
    blas = blas_workspace(gpu)
    total = stays[0] + allocated + blas
    segments = max(stays[1] + blas + occupied, total)
    return Memory(total, max(stays[1] + blas + reserved, segments), segments + context(gpu))
