"""Bytes of weights by how they are stored."""

from functools import lru_cache

from memplan.allocator import Pool
from memplan.facts import ITEM_SIZE, Component, Group
from memplan.run import Stored


@lru_cache(maxsize=256)
def sizes(component: Component, stored: Stored) -> tuple[int, ...]:
    """Bytes of each weight of `component` as `stored`."""
    if stored.dtype is None:
        return tuple(w.nbytes for w in component.weights)
    cast, item = set(component.cast), ITEM_SIZE[stored.dtype]
    return tuple(w.numel * item if i in cast else w.nbytes for i, w in enumerate(component.weights))


@lru_cache(maxsize=256)
def total(component: Component, stored: Stored) -> int:
    """Bytes of all weights of `component` as `stored`."""
    return sum(sizes(component, stored))


@lru_cache(maxsize=256)
def blocks(component: Component, stored: Stored) -> tuple[int, int]:
    """Bytes that all weights of `component`, moved one after the other, hold in the caching allocator.

    First in blocks, which is what it reports as allocated: it never splits off a remainder of 1 MiB or less. Then in
    the segments that it reserves for them.
    """
    pool = Pool()
    allocated = sum(pool.take(nbytes).size for nbytes in sizes(component, stored))
    return allocated, pool.reserved


def group_size(component: Component, stored: Stored, group: Group) -> int:
    """Bytes of one offload group as `stored`."""
    table = sizes(component, stored)
    return sum(table[i] for i in group.weights)


@lru_cache(maxsize=256)
def casts(component: Component, stored: Stored) -> dict[str, tuple[int, int]]:
    """For each leaf whose weights are cast around its forward: (bytes stored, bytes in the compute dtype)."""
    if stored.dtype is None:
        return {}
    table = sizes(component, stored)
    leaves: dict[str, tuple[int, int]] = {}
    for i in component.cast:
        weight = component.weights[i]
        small, large = leaves.get(weight.module, (0, 0))
        leaves[weight.module] = (small + table[i], large + weight.nbytes)
    return leaves


def pinned(nbytes: int) -> int:
    """Host bytes that PyTorch takes to pin one tensor: the next power of two (ATen/core/CachingHostAllocator.h)."""
    return 1 << (nbytes - 1).bit_length() if nbytes else 0
