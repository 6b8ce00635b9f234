"""What a dry run costs in processor time, against the size of the picture, the frames and the transformer blocks.

The models are FLUX.1-dev and Wan 2.1 at their published size; for blocks it is FLUX's transformer alone.
"""

from collections.abc import Callable, Iterable, Iterator
from time import process_time
from typing import Any

from memplan.facts import GIB, Trace
from memplan.probes.fakes.twin import Twin
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from tests.performance.beside_torch import arguments, transformer, twin_of

Call = tuple[Twin, dict[str, Any]]

SIDES = (512, 1024, 1536, 2048)
FRAMES = (17, 33, 49, 81)
BLOCKS = (2, 4, 8, 16)
"""Double blocks; there are twice as many single ones. FLUX.1-dev has 19 and 38."""


def lines() -> Iterator[str]:
    """The three tables."""
    yield from table("flux.1-dev, side of a square picture", SIDES, picture)
    yield from table("wan2.1-t2v-1.3b, frames of 832 x 480", FRAMES, video)
    yield from table("FLUX.1 transformer, 1024 x 1024, double blocks", BLOCKS, blocks)


def table(title: str, values: Iterable[int], call: Callable[[int], Call]) -> Iterator[str]:
    """A line for each value: what the dry run costs, and the peak of activations that it finds."""
    yield title
    for value in values:
        cost, trace = timed(*call(value))
        peak = max(call.activations for call in trace.calls)
        yield f"{value:>8}{cost:>9.2f} s{peak / GIB:>10.2f} GiB"


def timed(twin: Twin, given: dict[str, Any]) -> tuple[float, Trace]:
    """Seconds of processor time of a dry run, which other programs of the machine do not lengthen, and its result."""
    start = process_time()
    trace = dry_run(twin, given)
    return process_time() - start, trace


def picture(side: int) -> Call:
    """FLUX.1-dev makes a square picture."""
    return open_pipeline("flux.1-dev"), {"prompt": "a dog", "height": side, "width": side}


def video(frames: int) -> Call:
    """Wan 2.1 makes a video."""
    return open_pipeline("wan2.1-t2v-1.3b"), {"prompt": "a dog", "height": 480, "width": 832, "num_frames": frames}


def blocks(count: int) -> Call:
    """A FLUX.1 transformer of so many blocks is called once."""
    module = transformer(count)
    return twin_of(module), arguments(module, 1024)
