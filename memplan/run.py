"""The picture: one generation as it will happen. Strategies redraw it; the simulator prices it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Self

from memplan.facts import Component, Facts, Rates


@dataclass(frozen=True)
class Resident:
    """On the device from before the call until after it."""


@dataclass(frozen=True)
class OnCall:
    """In host memory until called, then whole on the device; the next component of the chain sends it back."""


@dataclass(frozen=True)
class OnDemand:
    """At home in host memory or in its files; whole on the device too, from when it is called until another one is."""


@dataclass(frozen=True)
class InGroups:
    """In host memory; each offload group is on the device only around its own modules.

    `level`, `blocks` and `modules` name the component's grouping. At level "sequential" the copy is dropped, not sent
    back. With `stream` the next group is copied while this one computes, from pinned memory; with `low_cpu_mem` the
    pinned copy is made anew for each transfer.
    """

    level: str
    blocks: int | None = None
    stream: bool = False
    low_cpu_mem: bool = False
    modules: str = ""


@dataclass(frozen=True)
class FromDisk:
    """In files; each offload group is read onto the device around its own modules, and dropped after them."""

    level: str
    blocks: int | None = None
    modules: str = ""


@dataclass(frozen=True)
class Partly:
    """On the device, but for `streamed` of its offload groups: those are in pinned host memory.

    Each of them is copied ahead into a slot on the device, computes there, and leaves nothing to copy back. `level` and
    `modules` name the component's grouping; at block level a group is one block. What is not streamed may be there
    only `on_demand`: from when the component is called until another one is.
    """

    level: str
    streamed: int
    modules: str = ""
    on_demand: bool = False

    @property
    def blocks(self) -> int | None:
        """Blocks in a group."""
        return 1 if self.level == "block_level" else None


@dataclass(frozen=True)
class Aside:
    """As loaded, and never on the device: nothing calls it."""


@dataclass(frozen=True)
class OnHost:
    """In host memory, and computing there: of its calls, only what they return comes to the device."""


Placement = Resident | OnCall | OnDemand | InGroups | FromDisk | Partly | Aside | OnHost


def by_turns(placement: Placement) -> bool:
    """Whether a component, or what of it is not streamed, comes on demand and goes when another one is called."""
    return placement.on_demand if isinstance(placement, Partly) else isinstance(placement, OnDemand)


LEAST, MOST = 0.25, 4
"""Of the mean size: smaller groups are not worth a copy of their own, and larger ones would need too large a slot."""
SLOTS = 2
"""Groups that have a place on the device at once: one computes while the next one comes."""
ALIGNMENT = 512
"""Bytes of which each tensor in a slot begins at a multiple, as those from PyTorch's own allocator on CUDA do."""
PAGE = 4096
"""Bytes of a page of host memory, in which it is pinned."""
SPLIT = ("nf4", "nf4 nested", "fp4", "fp4 nested")
"""Formats of weights whose first tensor can be moved while the others, its scales, stay on the device."""


def worth(sizes: Sequence[int]) -> tuple[int, ...]:
    """Which of groups of so many bytes are worth streaming, by number; those of 0 are not."""
    mean = sum(sizes) / max(sum(size > 0 for size in sizes), 1)
    return tuple(number for number, size in enumerate(sizes) if size and LEAST * mean <= size <= MOST * mean)


def spread(sizes: Sequence[int], streamed: int) -> tuple[int, ...]:
    """Which `streamed` of groups of so many bytes are, by number, or all: evenly spread, the last one among them.

    The first copy then has the time of the groups before it to hide in. One rule for what is priced and what is done.
    """
    choice = worth(sizes)
    streamed = min(streamed, len(choice))
    return tuple(choice[(turn + 1) * len(choice) // streamed - 1] for turn in range(streamed))


@dataclass(frozen=True)
class Stored:
    """How a component's weights are stored: as loaded, or in a `format`.

    A float8 dtype of torch is the format of the weights that `Component.cast` names; one of a quantizer is that of
    linear layers' matrices, but for those of modules that `spared` names, and those whose columns and rows are no
    multiples of `sides`. With `original` host memory keeps them too. `breaks` holds (technique, sentence) for what the
    format excludes. `recast` names weights that have another dtype, each with that dtype.
    """

    format: str | None = None
    spared: tuple[str, ...] = ()
    original: bool = False
    breaks: tuple[tuple[str, str], ...] = ()
    sides: tuple[int, int] = (1, 1)
    recast: tuple[tuple[str, str], ...] = ()

    def matrices(self, component: Component) -> tuple[int, ...]:
        """The weights of `component` that a quantizer's format converts, by number."""
        return component.matrices(self.spared, self.sides)


@dataclass(frozen=True)
class Compiled:
    """The forward of each of `modules` is compiled by itself; "" is the component.

    With `graphs` all that one of them launches is one CUDA graph, whose activations have memory of their own.
    """

    modules: tuple[str, ...]
    graphs: bool = False


@dataclass(frozen=True)
class Kept:
    """What a step cache keeps of the last thing that module `path` returned, from one forward to the next.

    Of its tensors those numbered `outputs`, or all. They are kept as they are, with the whole storage that they are
    views of, or `anew`: as tensors of their own, which in another `dtype` they are anyway. With `parts` they are a
    so-manieth of what a whole forward gives.
    """

    path: str
    outputs: tuple[int, ...] = ()
    anew: bool = False
    dtype: str = ""
    parts: int = 1


@dataclass(frozen=True)
class Shortened:
    """One forward under a step cache: the modules that it skips, and what is kept after it in its `context`.

    One that is `halved` computes half of its batch.
    """

    skipped: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()
    context: str = ""
    halved: bool = False


@dataclass(frozen=True)
class Cached:
    """A component's forwards under a step cache, in order; `breaks` holds (technique, sentence) for what it excludes.

    What it keeps is there until the pipeline's call ends.
    """

    forwards: tuple[Shortened, ...]
    breaks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Part:
    """One component as a run has it, on a machine of these rates. Equal ones are one object.

    What a component takes by itself follows from that alone, and is worked out once for all runs that have it so.
    """

    component: Component
    placement: Placement
    stored: Stored
    ways: frozenset[str]
    compiled: Compiled | None
    rates: Rates

    @property
    def name(self) -> str:
        """That of the component."""
        return self.component.name


_part = lru_cache(maxsize=8192)(Part)
_RESIDENT, _LOADED, _USUAL = Resident(), Stored(), frozenset[str]()


@dataclass(frozen=True, repr=False)
class Run:
    """One generation, drawn. Immutable; what is not mentioned is as loaded, whole and on the device."""

    facts: Facts
    placements: Mapping[str, Placement] = field(default_factory=lambda: MappingProxyType({}))
    storage: Mapping[str, Stored] = field(default_factory=lambda: MappingProxyType({}))
    variants: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    compiled: Mapping[str, Compiled] = field(default_factory=lambda: MappingProxyType({}))
    caches: Mapping[str, Cached] = field(default_factory=lambda: MappingProxyType({}))

    def __repr__(self) -> str:
        """The model, and what is drawn of each component."""
        drawn = [f"{name} {placement!r}" for name, placement in self.placements.items() if placement != Resident()]
        drawn += [f"{name} as {stored.format}" for name, stored in self.storage.items()]
        drawn += [f"{name} {' and '.join(sorted(ways))}" for name, ways in self.variants.items()]
        drawn += [f"{name} compiled" for name in self.compiled]
        drawn += [f"{name} cached" for name in self.caches]
        return f"<Run of {self.facts.model.name}: {', '.join(drawn) or 'everything on the device'}>"

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """Each component as it is drawn, by name, in the order of the model."""
        rates = self.facts.machine.rates
        return {
            one.name: _part(
                one,
                self.placement(one.name),
                self.stored(one.name),
                self.variant(one.name),
                self.compiled.get(one.name),
                rates,
            )
            for one in self.facts.model.components
        }

    def placement(self, component: str) -> Placement:
        """Where the weights of `component` live."""
        return self.placements.get(component, _RESIDENT)

    def stored(self, component: str) -> Stored:
        """How the weights of `component` are stored."""
        return self.storage.get(component, _LOADED)

    def lack(self, component: str, technique: str) -> str | None:
        """The sentence that says why `technique` is not to be had for `component`, as it is stored now, or None."""
        broken = dict(self.stored(component).breaks)
        broken |= dict(self.caches[component].breaks) if component in self.caches else {}
        return self.facts.model.component(component).lack(technique) or broken.get(technique)

    def variant(self, component: str) -> frozenset[str]:
        """The ways in which `component` is called otherwise than the pipeline does, e.g. "tiled"."""
        return self.variants.get(component, _USUAL)

    def place(self, component: str, placement: Placement) -> Self:
        """The same run with the weights of `component` elsewhere."""
        return replace(self, placements=MappingProxyType({**self.placements, component: placement}))

    def store(self, component: str, stored: Stored) -> Self:
        """The same run with the weights of `component` stored otherwise."""
        return replace(self, storage=MappingProxyType({**self.storage, component: stored}))

    def vary(self, component: str, way: str) -> Self:
        """The same run with the calls of `component` made this way too."""
        return replace(self, variants=MappingProxyType({**self.variants, component: self.variant(component) | {way}}))

    def cache(self, component: str, cached: Cached) -> Self:
        """The same run with a step cache in `component`."""
        return replace(self, caches=MappingProxyType({**self.caches, component: cached}))

    def compile(self, component: str, compiled: Compiled) -> Self:
        """The same run with modules of `component` compiled."""
        return replace(self, compiled=MappingProxyType({**self.compiled, component: compiled}))
