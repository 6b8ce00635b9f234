"""PyTorch's caching allocator, followed allocation by allocation: what is reserved beside what is allocated.

The rules are those of c10/cuda/CUDACachingAllocator: the best-fitting free block of the right pool is taken, and split
if what remains is worth keeping; a freed block joins its free neighbours; nothing is given back until asked.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from itertools import count

UNIT = 512
SMALL = 2**20
"""Requests up to this size come from the small pool (`kSmallSize`)."""
SMALL_SEGMENT = 2 * 2**20
MEDIUM, MEDIUM_SEGMENT = 10 * 2**20, 20 * 2**20
"""Larger requests below MEDIUM (`kMinLargeAlloc`) get a segment of MEDIUM_SEGMENT (`kLargeBuffer`)."""
LARGE_STEP = 2 * 2**20
"""Segments of larger requests are rounded up to this (`kRoundLarge`)."""


def segment_size(size: int) -> int:
    """Bytes of the segment that is reserved for a request of `size` bytes which no free block can serve."""
    if size <= SMALL:
        return SMALL_SEGMENT
    return MEDIUM_SEGMENT if size < MEDIUM else -(-size // LARGE_STEP) * LARGE_STEP


@dataclass(eq=False, slots=True)
class Reservation:
    """A segment taken from the driver, and how many of its blocks are in use: with none it could be given back."""

    size: int
    used: int = 0


@dataclass(eq=False, slots=True)
class Block:
    """A stretch of a segment, with its neighbours."""

    size: int
    segment: Reservation
    small: bool
    free: bool = False
    before: "Block | None" = None
    after: "Block | None" = None
    number: int = field(default_factory=count().__next__)


class Pool:
    """The allocator's state. `reserved` is the sum of its segments in bytes, `occupied` of those with a block in use.

    Under pressure the allocator gives back the others, so that the highest `occupied` is what a device must have.
    """

    def __init__(self) -> None:
        """Nothing is reserved."""
        self.reserved = self.occupied = self.highest = 0
        self._segments: list[Block] = []
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}

    def take(self, nbytes: int) -> Block:
        """Allocate."""
        size = max(-(-nbytes // UNIT) * UNIT, UNIT)
        small = size <= SMALL
        free = self._free[small]
        at = bisect_left(free, (size, 0))
        block = free.pop(at)[2] if at < len(free) else self._segment(size)
        self._use(block)
        if block.size - size >= (UNIT if small else SMALL + 1):
            rest = Block(block.size - size, block.segment, small, True, block, block.after)
            if rest.after:
                rest.after.before = rest
            block.size, block.after = size, rest
            insort(free, (rest.size, rest.number, rest))
        return block

    def give(self, block: Block) -> None:
        """Free; a free neighbour before it swallows the block, and the block one after it."""
        block.segment.used -= 1
        if not block.segment.used:
            self.occupied -= block.segment.size
        if block.before and block.before.free:
            self._forget(block.before)
            block = self._join(block.before, block)
        if block.after and block.after.free:
            self._forget(block.after)
            block = self._join(block, block.after)
        self._keep(block)

    def copy(self) -> tuple["Pool", dict[Block, Block]]:
        """An equal pool, and which block of it stands for which."""
        other, twins = Pool(), dict[Block, Block]()
        other.reserved, other.occupied, other.highest = self.reserved, self.occupied, self.highest
        for head in self._segments:
            segment = Reservation(head.segment.size, head.segment.used)
            block: Block | None = head
            last: Block | None = None
            while block is not None:
                twin = twins[block] = Block(block.size, segment, block.small, block.free, before=last)
                if last:
                    last.after = twin
                if block.free:
                    other._keep(twin)
                block, last = block.after, twin
        other._segments = [twins[head] for head in self._segments]
        return other, twins

    def _segment(self, size: int) -> Block:
        block = Block(segment_size(size), Reservation(segment_size(size)), size <= SMALL)
        self.reserved += block.size
        self._segments.append(block)
        return block

    def _use(self, block: Block) -> None:
        block.free = False
        if not block.segment.used:
            self.occupied += block.segment.size
            self.highest = max(self.highest, self.occupied)
        block.segment.used += 1

    def _join(self, left: Block, right: Block) -> Block:
        left.size += right.size
        left.after = right.after
        if left.after:
            left.after.before = left
        return left

    def _keep(self, block: Block) -> None:
        block.free = True
        insort(self._free[block.small], (block.size, block.number, block))

    def _forget(self, block: Block) -> None:
        free = self._free[block.small]
        free.pop(bisect_left(free, (block.size, block.number)))
