"""Bytes of weights by how they are stored."""

from dataclasses import dataclass
from functools import lru_cache

from memplan.allocator import Pool
from memplan.facts import ITEM_SIZE, Call, Component, Group, Weight
from memplan.run import Stored
from memplan.simulator.formats import FORMATS, Leaf


@lru_cache(maxsize=256)
def loaded(component: Component) -> tuple[int, ...]:
    """Bytes of each weight of `component` as it is loaded."""
    return tuple(weight.nbytes for weight in component.weights)


@lru_cache(maxsize=256)
def tensors(component: Component, stored: Stored) -> tuple[tuple[int, ...], ...]:
    """Bytes of each tensor that holds a weight of `component` as `stored`, weight by weight."""
    form, recast = FORMATS.get(stored.format or ""), dict(stored.recast)
    numbers = set(changed(component, stored))

    def of(weight: Weight) -> tuple[int, ...]:
        dtype = recast.get(weight.name, stored.format)
        return form.tensors(weight) if form else (weight.numel * ITEM_SIZE[str(dtype)],)

    return tuple(of(w) if i in numbers else w.parts or (w.nbytes,) for i, w in enumerate(component.weights))


@lru_cache(maxsize=256)
def changed(component: Component, stored: Stored) -> tuple[int, ...]:
    """The weights of `component` that are `stored` otherwise than as loaded, by number."""
    if stored.format in FORMATS:
        return stored.matrices(component)
    names = dict(stored.recast)
    return component.cast if stored.format else tuple(i for i, w in enumerate(component.weights) if w.name in names)


@lru_cache(maxsize=256)
def sizes(component: Component, stored: Stored) -> tuple[int, ...]:
    """Bytes of each weight of `component` as `stored`."""
    return tuple(map(sum, tensors(component, stored)))


@lru_cache(maxsize=256)
def total(component: Component, stored: Stored) -> int:
    """Bytes of all weights of `component` as `stored`."""
    return sum(sizes(component, stored))


@lru_cache(maxsize=256)
def blocks(component: Component, stored: Stored, away: frozenset[int] = frozenset()) -> tuple[int, int]:
    """Bytes that the weights of `component` but for those `away`, moved one after the other, hold in the allocator.

    First in blocks, which is what it reports as allocated: it never splits off a remainder of 1 MiB or less. Then in
    the segments that it reserves for them.
    """
    pool = Pool()
    there = (parts for number, parts in enumerate(tensors(component, stored)) if number not in away)
    allocated = sum(pool.take(nbytes).size for parts in there for nbytes in parts)
    return allocated, pool.reserved


def group_size(component: Component, stored: Stored, group: Group) -> int:
    """Bytes of one offload group as `stored`."""
    table = sizes(component, stored)
    return sum(table[i] for i in group.weights)


@lru_cache(maxsize=256)
def casts(component: Component, stored: Stored) -> dict[str, tuple[int, int]]:
    """For each leaf whose weights are cast around its forward: (bytes stored, bytes in the compute dtype)."""
    if stored.format is None or stored.format in FORMATS:
        return {}
    table = sizes(component, stored)
    leaves: dict[str, tuple[int, int]] = {}
    for i in component.cast:
        weight = component.weights[i]
        small, large = leaves.get(weight.module, (0, 0))
        leaves[weight.module] = (small + table[i], large + weight.nbytes)
    return leaves


@dataclass(frozen=True)
class Work:
    """What a linear layer of a quantizer's format does: the most it `held`, and bytes written and read on the way.

    `product` is the dtype of its product, "" for that of its input. Of its traffic, compiled code is `spared` so much.
    """

    held: int
    traffic: int
    product: str
    spared: int = 0


@lru_cache(maxsize=4096)
def works(component: Component, stored: Stored, call: Call) -> dict[str, Work]:
    """The work of each quantized layer that `call` enters, by its path."""
    form = FORMATS.get(stored.format or "")
    if form is None:
        return {}
    rows = dict(zip(call.modules, call.rows, strict=False))
    biases = {w.module for w in component.weights if w.name.endswith("bias")}
    found: dict[str, Work] = {}
    for i in stored.matrices(component):
        weight = component.weights[i]
        if rows.get(weight.module):
            features, biased = weight.numel // weight.columns, weight.module in biases
            leaf = Leaf(rows[weight.module], weight.columns, features, weight.dtype, biased)
            held, moved = form.held(leaf), form.moved(leaf)
            spared = moved - form.fused(leaf) if form.fused else 0
            found[weight.module] = Work(held, moved, form.product, spared)
    return found


@lru_cache(maxsize=256)
def originals(component: Component, stored: Stored) -> int:
    """Bytes of the original weights that host memory keeps: those of the ones that were converted."""
    return sum(loaded(component)[i] for i in changed(component, stored)) if stored.original else 0


@lru_cache(maxsize=256)
def anonymous(component: Component, stored: Stored, away: frozenset[int] = frozenset()) -> int:
    """Bytes of its weights that are in no file as they are: those made anew when they were loaded or converted.

    Those `away` are not counted.
    """
    made = set(changed(component, stored)) if component.mapped else set(range(len(component.weights)))
    return sum(sizes(component, stored)[i] for i in made - away)


def pinned(nbytes: int) -> int:
    """Host bytes that PyTorch takes to pin one tensor: the next power of two (ATen/core/CachingHostAllocator.h)."""
    return 1 << (nbytes - 1).bit_length() if nbytes else 0
