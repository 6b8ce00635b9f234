"""What was measured: the machine, the model and the dry run of one call. Frozen; nothing here is guessed.

Every size is in bytes, every rate in units per second, every path is a dotted module path inside its component.
The large facts compare by identity, so that prices computed from them can be remembered.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

GIB = 1024**3
MIB = 1024**2

ITEM_SIZE = {
    "float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1, "complex64": 8, "complex128": 16,
}  # fmt: skip
"""Bytes of one element, by the name of its torch dtype."""


# ---- the machine ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Gpu:
    """One accelerator, present or named by the user.

    `free` is what a new process could allocate before any reserve of the user's: total less what others hold.
    `rates` are dense datasheet FLOP/s by dtype, `link` the host link's bytes/s in one direction. `source` says where
    the figures come from: "nvml", "torch", "catalogue" or "user". `kind` is "cuda", "rocm", "xpu" or "mps". `unified`
    memory is the host's own: one pool for both.
    """

    name: str
    total: int
    free: int
    kind: str = "cuda"
    capability: tuple[int, int] | None = None
    bandwidth: float | None = None
    rates: tuple[tuple[str, float], ...] = ()
    link: float | None = None
    link_name: str = ""
    driver: str = ""
    source: str = "user"
    unified: bool = False

    @property
    def held_by_others(self) -> int:
        """Bytes of device memory that other processes and the driver hold now."""
        return self.total - self.free


@dataclass(frozen=True)
class Host:
    """Host memory and disk. `limit` is the lowest cgroup limit above this process, or None."""

    total: int
    available: int
    limit: int | None = None
    disk_free: int | None = None
    source: str = "user"


@dataclass(frozen=True)
class Machine:
    """The machine a plan is made for. `reserve` is device memory the user wants kept free for others."""

    gpu: Gpu | None
    host: Host
    reserve: int = 0

    @property
    def vram(self) -> int:
        """Device memory a plan may use."""
        return max(self.gpu.free - self.reserve, 0) if self.gpu else 0

    @property
    def ram(self) -> int:
        """Host memory a plan may use."""
        return self.host.available


# ---- the model ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Weight:
    """One stored tensor: a parameter or a buffer. Tied tensors appear once, under their first name."""

    name: str
    numel: int
    dtype: str
    buffer: bool = False

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
    component's weights. A group that is not `streamed` is never pinned nor prefetched, even in stream mode.
    """

    onload: str
    offload: str
    weights: tuple[int, ...]
    streamed: bool = True


@dataclass(frozen=True)
class Grouping:
    """All groups of a component for one setting: level "leaf_level", or "block_level" with blocks per group."""

    level: str
    blocks: int | None
    groups: tuple[Group, ...]


@dataclass(frozen=True, eq=False)
class Component:
    """One module of the pipeline as loaded.

    `cast` indexes the weights that layerwise casting stores in fp8 by the library's own skip rules; `groupings` are
    the offload groups it forms; `lacks` holds (technique, sentence) for what the library refuses for this class.
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

    @cached_property
    def size(self) -> int:
        """S_total of this component: bytes of parameters and buffers as stored."""
        return sum(w.nbytes for w in self.weights)

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

    def grouping(self, level: str, blocks: int | None = None) -> Grouping | None:
        """The grouping of that setting, or None where the library forms none."""
        return next((g for g in self.groupings if (g.level, g.blocks) == (level, blocks)), None)

    def lack(self, technique: str) -> str | None:
        """The sentence that says why the library does not offer `technique` here, or None when it does."""
        return dict(self.lacks).get(technique)

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


@dataclass(frozen=True, eq=False)
class Model:
    """A pipeline: its components, in the pipeline's order, and what its class says about offloading.

    `offload_order` is the eviction chain of model CPU offload; `never_offloaded` names what it keeps on the device.
    `source` is the live pipeline, folder or bundled name it was read from; `versions` the libraries that read it.
    """

    name: str
    class_name: str
    components: tuple[Component, ...]
    offload_order: tuple[str, ...] = ()
    never_offloaded: tuple[str, ...] = ()
    source: str = ""
    versions: tuple[tuple[str, str], ...] = ()

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


# ---- the dry run ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one call between two module boundaries.

    Before it the modules `enters` are entered, after it the modules `leaves` return (indices into `Call.modules`).
    `live` and `peak` are bytes of activations and op workspace above the call's `base`: at its start, and at most.
    `op` indexes `Call.ops`, the operation at the peak. `flops` and `traffic` (bytes read and written) are those of one
    occurrence; within a call there are `repeat` of them.
    """

    enters: tuple[int, ...]
    leaves: tuple[int, ...]
    live: int
    peak: int
    op: int
    flops: int
    traffic: int
    repeat: int = 1


@dataclass(frozen=True, eq=False)
class Call:
    """One traced call of a component, e.g. `transformer.forward` or `vae.decode`.

    `component` is "" for the pipeline's own code between calls. `variant` is "" or the name of another way to run
    the same call, e.g. "tiled". `base` is what the pipeline's own tensors hold while it runs. `reserved_alone` is what
    the caching allocator reserves for this call when it starts empty, `occupied_alone` the most of it in segments in
    use; `reserved` what it holds after this call when nothing was given back since the pipeline began, `occupied` the
    most in use during the call. All of it without weights.
    """

    component: str
    method: str
    phase: str
    base: int
    modules: tuple[str, ...]
    ops: tuple[str, ...]
    segments: tuple[Segment, ...]
    variant: str = ""
    reserved_alone: int = 0
    occupied_alone: int = 0
    reserved: int = 0
    occupied: int = 0

    @cached_property
    def peak_segment(self) -> Segment:
        """The segment with the highest activations."""
        return max(self.segments, key=lambda s: s.peak)

    @property
    def activations(self) -> int:
        """A of this call: activation and workspace bytes at their peak, the pipeline's own tensors included."""
        return self.base + self.peak_segment.peak

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of one such call."""
        return sum(s.flops * s.repeat for s in self.segments)

    def module_of(self, segment: Segment) -> str:
        """Path of the innermost module open in `segment`; "" is the component itself."""
        open_modules: list[int] = []
        for s in self.segments:
            open_modules.extend(s.enters)
            if s is segment:
                break
            for m in s.leaves:
                open_modules.remove(m)
        return self.modules[open_modules[-1]] if open_modules else ""


@dataclass(frozen=True, slots=True)
class Step:
    """`repeat` runs of `Trace.calls[call]`, one after the other."""

    call: int
    repeat: int


@dataclass(frozen=True, eq=False)
class Trace:
    """The dry run of one pipeline call, in order. `device` is the kind whose kernels it assumes: "cuda" or "cpu".

    `alternatives` are other ways to run a call of `calls`: same component and method, with a `variant`.
    `arguments` are the call's arguments as shown to people; `assumptions` what had to be bounded, in sentences.
    """

    device: str
    calls: tuple[Call, ...]
    timeline: tuple[Step, ...]
    alternatives: tuple[Call, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    assumptions: tuple[str, ...] = ()

    def alternative(self, call: Call, variant: str) -> Call:
        """`call` run the `variant` way; `call` itself where there is no such way."""
        for other in self.alternatives:
            if (other.component, other.method, other.variant) == (call.component, call.method, variant):
                return other
        return call


@dataclass(frozen=True)
class Facts:
    """Everything measured before planning."""

    machine: Machine
    model: Model
    trace: Trace
