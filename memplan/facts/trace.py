"""The dry run of one call: a timeline of segments."""

from dataclasses import dataclass, replace
from functools import cached_property

from memplan.facts.caching import Result, Turn
from memplan.facts.differentiable import Passes
from memplan.facts.training import Trained
from memplan.facts.units import amount

TILED, SLICED, IN_SLICES, COMPUTED = "tiled", "sliced", "attention in slices", "computed"
BACKEND, BATCHED, CHANNELS_LAST = "attention", "frames", "channels last"
HALVED, PAIRED, ZEROED = "in halves", "two at once", "scaled by CFG-Zero*"
"""Ways to make a call otherwise than the pipeline does; tiles of another size than the library's are "tiled:512", what
computes in another dtype is "computed:float16", attention by another kernel "attention:flash", and a video that is
decoded 32 frames at a time "frames:32"."""

FREED = "without the first"
"""A way to make none of the first calls: "without the first:2". It changes nothing about the others."""

CHECKPOINTED = "checkpointed"
"""The way of a training step in which blocks keep no activations and compute them again: "checkpointed:4" for every
fourth one."""

REMADE = "made again"
"""The way of a forward that keeps only what it was given, and is made again in its backward."""

DENOISING, TEXT_ENCODING = "denoising", "text encoding"
"""The phases in which denoisers and text encoders are called."""

REUSED = "reused"
"""The way of a component whose calls within encode_prompt() are spared: "reused:16" where 16 results are kept."""

TOGETHER = " + "
"""Joins ways that fail together, though not alone."""


MATMUL, ATTENTION, CONVOLUTION, ELEMENTWISE = "matmul", "attention", "convolution", "elementwise"
EFFICIENT = "memory-efficient attention"
"""What PyTorch's memory-efficient kernel computes; ATTENTION is flash's, or any on a CPU."""
"""Families of ops: what they do per byte and per FLOP depends on them. Reductions and copies are elementwise here."""


@dataclass(frozen=True, slots=True)
class Ops:
    """`count` ops of one family on operands of one dtype: their FLOPs, and the bytes that they read and write.

    `traffic` counts each operand and each result once for each op, as if no cache kept it, and workspace twice.
    """

    family: str
    dtype: str
    count: int
    flops: int
    traffic: int

    def __add__(self, other: "Ops") -> "Ops":
        """Both, of the same family and dtype."""
        flops, traffic = self.flops + other.flops, self.traffic + other.traffic
        return Ops(self.family, self.dtype, self.count + other.count, flops, traffic)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one call between two module boundaries.

    Before it the modules `enters` are entered, after it the modules `leaves` return (indices into `Call.modules`).
    `live` and `peak` are bytes of activations and op workspace above the call's `base`: at its start, and at most.
    `op` indexes `Call.ops`, the operation at the peak. `work` is that of one occurrence, by family and dtype; within a
    call there are `repeat` of them. `fused` is the work of a compiled one, whose elementwise ops are kernels that do
    several of them; None where it is the same.
    """

    enters: tuple[int, ...]
    leaves: tuple[int, ...]
    live: int
    peak: int
    op: int
    work: tuple[Ops, ...] = ()
    repeat: int = 1
    fused: tuple[Ops, ...] | None = None

    @property
    def compiled(self) -> tuple[Ops, ...]:
        """The work of a compiled occurrence."""
        return self.work if self.fused is None else self.fused

    @property
    def flops(self) -> int:
        """Floating-point operations of one occurrence."""
        return sum(ops.flops for ops in self.work)

    @property
    def traffic(self) -> int:
        """Bytes that one occurrence reads and writes."""
        return sum(ops.traffic for ops in self.work)


@dataclass(frozen=True, eq=False, repr=False)
class Call:
    """One traced call of a component, e.g. `transformer.forward` or `vae.decode`.

    `component` is "" for the pipeline's own code between calls. `variant` names the ways in which it is made otherwise
    than the pipeline does, e.g. ("sliced", "tiled"). `base` is what the pipeline's own tensors hold while it runs.
    `reserved_alone` is what the caching allocator reserves for this call when it starts empty, `occupied_alone` the
    most of it in segments in use; `reserved` what it holds after this call when nothing was given back since the
    pipeline began, `occupied` the most in use during the call. All of it without weights. `host` is the most that
    the pipeline's own code holds in host memory: the pictures it makes. `rows` are the most rows that the linear layer
    among `modules` is given at once, 0 for any other module. `recast` names the weights that have another dtype in this
    variant, each with that dtype. `results` are the tensors that each of `modules` returned last: the component's own,
    and those of its blocks and of what they are made of; () for a single layer inside.
    """

    component: str
    method: str
    phase: str
    base: int
    modules: tuple[str, ...]
    ops: tuple[str, ...]
    segments: tuple[Segment, ...]
    variant: tuple[str, ...] = ()
    reserved_alone: int = 0
    occupied_alone: int = 0
    reserved: int = 0
    occupied: int = 0
    host: int = 0
    rows: tuple[int, ...] = ()
    recast: tuple[tuple[str, str], ...] = ()
    results: tuple[tuple[Result, ...], ...] = ()

    def __repr__(self) -> str:
        """What is called, in which phase and way, its activations and its segments."""
        name = f"{self.component}.{self.method}" if self.component else "the pipeline's own code"
        ways = [f"{', '.join(self.variant)}"] if self.variant else []
        held = f"{amount(self.activations)} of activations, {len(self.segments):,} segments"
        return f"<Call of {name}: {', '.join([self.phase, *ways, held])}>"

    @cached_property
    def peak_segment(self) -> Segment:
        """The segment with the highest activations."""
        return max(self.segments, key=lambda s: s.peak)

    @property
    def activations(self) -> int:
        """A of this call: activation and workspace bytes at their peak, the pipeline's own tensors included."""
        return self.base + self.peak_segment.peak

    @property
    def serves(self) -> int:
        """How many of the pipeline's calls it takes the place of; the first so many are made as the pipeline does."""
        return 2 if PAIRED in self.variant else 1

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of one such call."""
        return sum(s.flops * s.repeat for s in self.segments)

    def returned(self, module: str) -> tuple[Result, ...]:
        """The tensors that `module` returned; () where it does not run, or is a single layer."""
        return dict(zip(self.modules, self.results, strict=False)).get(module, ())

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


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """A `call` that keeps what its backward needs, with that backward: what both hold in tensors and in segments.

    Segments are those that the caching allocator takes for it when it starts empty.
    """

    call: Call
    tensors: Passes
    segments: Passes


@dataclass(frozen=True, slots=True)
class Step:
    """`repeat` runs of `Trace.calls[call]`, one after the other; those `prompted` are within `encode_prompt()`."""

    call: int
    repeat: int
    prompted: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """The dry run of one pipeline call, in order. `device` is the kind whose kernels it assumes: "cuda" or "cpu".

    `alternatives` are calls of `calls` made in other ways: same component and method, with a `variant`. A way that
    changes nothing is in none. `failed` are the ways that fail: component, way or ways TOGETHER, and the words of the
    error. `arguments` are the call's arguments as shown to people; `assumptions` what had to be bounded, in sentences.
    `reached` are components whose modules run, in calls or by other ways. `host_side` are components that may compute
    in host memory, as the pipeline asks where they do and moves what they return: each group as a whole or not at all.
    `turns` are the forwards of denoisers that can have a step cache, in order.
    `encoded` are the most bytes that the pipeline's encode_prompt() returns at once. `trained` are the parameters that
    the calls of a training step train; a call of it is a forward and its backward. `graphs` are such calls of the
    components through which a call of the pipeline keeps gradients, and `steps` those of its scheduler.
    """

    device: str
    calls: tuple[Call, ...]
    timeline: tuple[Step, ...]
    alternatives: tuple[Call, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    assumptions: tuple[str, ...] = ()
    failed: tuple[tuple[str, str, str], ...] = ()
    reached: tuple[str, ...] = ()
    host_side: tuple[tuple[str, ...], ...] = ()
    turns: tuple[Turn, ...] = ()
    encoded: int = 0
    trained: tuple[Trained, ...] = ()
    graphs: tuple[Graph, ...] = ()
    steps: int = 0

    def __repr__(self) -> str:
        """The kind of device, and how long it is."""
        return f"<Trace for {self.device}: {self.extent}>"

    @property
    def extent(self) -> str:
        """How many calls and segments it has, in words."""
        runs, segments = sum(step.repeat for step in self.timeline), sum(len(call.segments) for call in self.calls)
        return f"{runs:,} calls, {len(self.calls):,} of them different, of {segments:,} segments"

    @cached_property
    def called(self) -> frozenset[str]:
        """The components that are called."""
        return frozenset(call.component for call in self.calls)

    @cached_property
    def prompted(self) -> tuple[str, ...]:
        """The components that are called within `encode_prompt()`, in order."""
        called = (self.calls[step.call].component for step in self.timeline if step.prompted)
        return tuple(dict.fromkeys(filter(None, called)))

    @cached_property
    def again(self) -> "Trace":
        """The same call for a prompt that is encoded already."""
        return replace(self, timeline=tuple(step for step in self.timeline if not step.prompted))

    def alternative(self, call: Call, ways: frozenset[str]) -> Call:
        """`call` made in as many of these ways as change it; `call` itself where none does."""
        same = (c for c in self.alternatives if (c.component, c.method) == (call.component, call.method))
        return max((call, *(c for c in same if ways.issuperset(c.variant))), key=lambda c: len(c.variant))

    def graph(self, call: Call, ways: frozenset[str]) -> Graph | None:
        """`call` with its backward, made in as many of these ways as change it; None where it keeps no gradients."""
        same = (g for g in self.graphs if (g.call.component, g.call.method) == (call.component, call.method))
        return max(
            (g for g in same if ways.issuperset(g.call.variant)), key=lambda g: len(g.call.variant), default=None
        )

    def phases(self, component: str) -> frozenset[str]:
        """The phases in which `component` is called."""
        return frozenset(call.phase for call in self.calls if call.component == component)

    def ways(self, component: str) -> frozenset[str]:
        """The ways to call `component` that change what it holds."""
        made = (*self.alternatives, *(graph.call for graph in self.graphs))
        return frozenset(way for call in made if call.component == component for way in call.variant)

    def held(self, component: str, way: str) -> int:
        """The most activations, in bytes, of the calls of `component` that are made in this way alone; 0 for none."""
        alone = (call for call in self.alternatives if (call.component, call.variant) == (component, (way,)))
        return max((call.activations for call in alone), default=0)

    def recast(self, component: str, way: str) -> tuple[tuple[str, str], ...]:
        """The weights of `component` that have another dtype when it is called in this way, each with that dtype."""
        made = (call for call in self.alternatives if (call.component, call.variant) == (component, (way,)))
        return next((call.recast for call in made), ())

    def failure(self, component: str, *ways: str) -> str | None:
        """The words with which `component` fails when called in these ways together, or None where it does not."""
        own = ((failed, words) for name, failed, words in self.failed if name == component)
        return next((words for failed, words in own if set(failed.split(TOGETHER)) <= set(ways)), None)
