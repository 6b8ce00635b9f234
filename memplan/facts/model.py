"""A pipeline's components: their weights, how they split into groups, and what the libraries refuse for them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from memplan.facts import notebook
from memplan.facts.caching import CacheHooks
from memplan.facts.units import amount

ITEM_SIZE = {
    "float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1, "complex64": 8, "complex128": 16,
}  # fmt: skip
"""Bytes of one element, by the name of its torch dtype."""


@dataclass(frozen=True)
class Weight:
    """One stored tensor: a parameter or a buffer. Tied tensors appear once, under their first name.

    A weight in a quantizer's format counts its bytes as elements of "uint8", its scales among them; `parts` are the
    bytes of each of its tensors. `columns` are the input features of a linear layer's matrix, and 0 for other weights.
    """

    name: str
    numel: int
    dtype: str
    buffer: bool = False
    columns: int = 0
    parts: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes as stored."""
        return self.numel * ITEM_SIZE[self.dtype]

    @property
    def module(self) -> str:
        """Path of the module that owns it."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Group:
    """An offload group as the installed library forms it.

    It comes in when module `onload` is entered and leaves when module `offload` returns. `weights` index the
    component's weights; one that comes twice is held twice from the group's second turn on. A group that is not
    `streamed` is never pinned nor prefetched, even in stream mode.
    """

    onload: str
    offload: str
    weights: tuple[int, ...]
    streamed: bool = True


BY_MODULE, BY_WEIGHT = "modules", "weights"
"""How transformers' quantizers look up what to leave: by the path of a layer, or of its weight. bitsandbytes' and
quanto's do the first, torchao's the second, so that T5's `wo` is spared by the one and converted by the other."""

SEQUENTIAL = "sequential"
"""The level at which every module that owns weights is a group: accelerate's."""


@dataclass(frozen=True)
class Grouping:
    """All groups of a component for one setting: "leaf_level", "sequential", or "block_level" with blocks per group.

    At block level `modules` names those inside which lists of blocks are looked for too, joined by "+".
    """

    level: str
    blocks: int | None
    groups: tuple[Group, ...]
    modules: str = ""

    def __hash__(self) -> int:
        """By its setting, of which a component has one: what is known of groupings is looked up often."""
        return hash((self.level, self.blocks, self.modules))


@dataclass(frozen=True, eq=False, repr=False)
class Component:
    """One module of the pipeline as loaded.

    `cast` indexes the weights that layerwise casting stores in fp8 by the library's own skip rules; `groupings` are
    the offload groups it forms; `lacks` holds (technique, sentence) for what the library refuses for this class.
    `spared` holds, BY_MODULE and BY_WEIGHT, what quantizers' own rules leave: modules that are or have linear layers.
    `file` is the checkpoint of one file that it is loaded from; "" where that is the pipeline's own place. `mapped`
    weights are read from their files as they are; others are made anew as they are loaded, in another dtype. Those
    `on_device` are on a device already, where a plan is applied to them in place.
    `errors` holds, for each format, the relative error of each linear layer's matrix in it, in the order of
    `matrices()`, where the weights were at hand. `regions` are the modules that the library's regional compilation
    compiles, each by itself. `caches` are the step caches that it takes, and the modules that they hook.
    """

    name: str
    class_name: str
    library: str
    dtype: str
    weights: tuple[Weight, ...]
    groupings: tuple[Grouping, ...] = ()
    cast: tuple[int, ...] = ()
    cast_skip: tuple[str, ...] = ()
    lacks: tuple[tuple[str, str], ...] = ()
    spared: tuple[tuple[str, tuple[str, ...]], ...] = ()
    file: str = ""
    mapped: bool = True
    on_device: bool = False
    errors: tuple[tuple[str, tuple[float, ...]], ...] = ()
    regions: tuple[str, ...] = ()
    caches: tuple[CacheHooks, ...] = ()

    def __repr__(self) -> str:
        """Name, class, size and dtype."""
        return f"<Component {self.name}: {self.class_name}, {amount(self.size)} in {self.dtype}>"

    @cached_property
    def size(self) -> int:
        """S_total of this component: bytes of parameters and buffers as stored."""
        return sum(w.nbytes for w in self.weights)

    @cached_property
    def numel(self) -> int:
        """Elements of all parameters and buffers."""
        return sum(w.numel for w in self.weights)

    @cached_property
    def cast_numel(self) -> int:
        """Elements of those that layerwise casting stores in 8 bits."""
        return sum(self.weights[i].numel for i in self.cast)

    @cached_property
    def cast_size(self) -> int:
        """Bytes after layerwise casting to an 8-bit storage type."""
        return self.size - sum(self.weights[i].nbytes - self.weights[i].numel for i in self.cast)

    @cached_property
    def bytes_by_dtype(self) -> dict[str, int]:
        """Stored bytes of each dtype."""
        table: dict[str, int] = {}
        for w in self.weights:
            table[w.dtype] = table.get(w.dtype, 0) + w.nbytes
        return table

    def matrices(self, spared: tuple[str, ...] = (), sides: tuple[int, int] = (1, 1)) -> tuple[int, ...]:
        """The weights of linear layers by number, but for those of, or inside, modules that `spared` names.

        A name stands for each module whose path has it as a whole part, or several parts: "wo", "blocks.0". Of `sides`
        columns and rows must be multiples.
        """
        return _matrices(self, spared, sides)

    def error(self, form: str) -> Mapping[int, float]:
        """The relative error of linear layers' matrices in the format `form`, by number; those that were measured."""
        return _error(self, form)

    def grouping(self, level: str, blocks: int | None = None, modules: str = "") -> Grouping | None:
        """The grouping of that setting, or None where the library forms none."""
        wanted = (level, blocks, modules)
        return next((g for g in self.groupings if (g.level, g.blocks, g.modules) == wanted), None)

    def lack(self, technique: str) -> str | None:
        """The sentence that says why the library does not offer `technique` here, or None when it does."""
        return dict(self.lacks).get(technique)

    def cache(self, technique: str) -> CacheHooks | None:
        """Where the step cache `technique` hooks it, or None where it takes none."""
        return next((hooks for hooks in self.caches if hooks.technique == technique), None)

    def _group_sizes(self, grouping: Grouping | None) -> Iterator[tuple[Group, int]]:
        for group in grouping.groups if grouping else ():
            yield group, sum(self.weights[i].nbytes for i in group.weights)

    @cached_property
    def unmatched(self) -> int:
        """Bytes that block-level offload keeps resident for the whole forward."""
        return sum(size for g, size in self._group_sizes(self.grouping("block_level", 1)) if not g.streamed)

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        """Bytes of each block-level group of one block (S_block is the largest)."""
        return tuple(size for g, size in self._group_sizes(self.grouping("block_level", 1)) if g.streamed)

    @cached_property
    def leaf(self) -> int:
        """S_leaf: bytes of the largest leaf-level group."""
        return max((size for _, size in self._group_sizes(self.grouping("leaf_level"))), default=0)


@lru_cache(maxsize=1024)
def _matrices(component: Component, spared: tuple[str, ...], sides: tuple[int, int]) -> tuple[int, ...]:
    names, (columns, rows) = tuple(f".{name}." for name in spared), sides
    linear = ((number, weight) for number, weight in enumerate(component.weights) if weight.columns)
    fitting = ((n, f".{w.module}.") for n, w in linear if not (w.columns % columns or w.numel // w.columns % rows))
    return tuple(number for number, path in fitting if not any(name in path for name in names))


@lru_cache(maxsize=256)
def _error(component: Component, form: str) -> Mapping[int, float]:
    return dict(zip(component.matrices(), dict(component.errors).get(form, ()), strict=False))


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A pipeline: its components, in the pipeline's order, and what its class says about offloading.

    `offload_order` is the eviction chain of model CPU offload; `never_offloaded` names what it keeps on the device, and
    `never_sequential` what sequential offload keeps there, which does not go by the chain.
    `source` is the live pipeline, folder or bundled name it was read from, `variant` which of its files of weights (""
    for those without); `versions` are the libraries that read it.
    `lacks` holds (technique, sentence) for what the library does not offer for this kind of pipeline.
    """

    name: str
    class_name: str
    components: tuple[Component, ...]
    offload_order: tuple[str, ...] = ()
    never_offloaded: tuple[str, ...] = ()
    never_sequential: tuple[str, ...] = ()
    source: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    lacks: tuple[tuple[str, str], ...] = ()
    variant: str = ""

    def __repr__(self) -> str:
        """Name, class, size, and those of the components."""
        parts = ", ".join(f"{c.name} {amount(c.size)}" for c in self.components)
        return f"<Model {self.name}: {self.class_name}, {amount(self.size)} of weights: {parts}>"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        return notebook.model(self)

    def lack(self, technique: str) -> str | None:
        """The sentence that says why the library does not offer `technique` for it, or None when it does."""
        return dict(self.lacks).get(technique)

    def component(self, name: str) -> Component:
        """The component of that name. Raises KeyError."""
        found = next((c for c in self.components if c.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    @cached_property
    def size(self) -> int:
        """S_total: bytes of all components as stored."""
        return sum(c.size for c in self.components)

    @cached_property
    def largest(self) -> int:
        """S_max: bytes of the largest component."""
        return max((c.size for c in self.components), default=0)
