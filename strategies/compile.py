"""torch.compile: a component's forward becomes fewer, larger kernels."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.errors import BadInput
from memplan.facts import CHECKPOINTED, HALVED, PAIRED, SEQUENTIAL, ZEROED, Component, Facts, Purpose, Trace
from memplan.run import Aside, Compiled, FromDisk, InGroups, OnCall, OnDemand, OnHost, Partly, Run
from memplan.strategy import Decision, Seat, Strategy, Undo

from .live.recompiling import LIMIT, raised
from .live.way_back import attributes
from .rules.compiler import DEVICES, lacking

BLOCKS, WHOLE, DECODER = REGIONS = "blocks", "whole", "decoder"
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
GRAPHED = ("reduce-overhead", "max-autotune")
"""Modes that record CUDA graphs (`list_mode_options` of torch/_inductor)."""
BROKEN = {
    "bnb int8": "bitsandbytes looks for outliers, whose number the compiler cannot know, in every layer of 8 bits",
    "float8_e4m3fn": "layerwise casting makes the parameters of every layer anew, which the compiler cannot follow",
    "float8_e5m2": "layerwise casting makes the parameters of every layer anew, which the compiler cannot follow",
}
"""Formats whose layers the compiler leaves one by one, and why: between them nothing is left to fuse."""


@dataclass(frozen=True)
class Compile(Strategy):
    """torch.compile: a component's forward becomes fewer, larger kernels.

    What goes element by element or row by row, and only feeds its neighbour, is done in one kernel and never written.
    The larger the share of norms, rotations and activations, the more time it saves; products and attention stay as
    they are. Formats of torchao gain most: their rounding becomes part of other kernels.

    `region` "blocks" compiles each repeated block by itself, so that equal blocks are compiled once; "whole" compiles
    the component's forward, and "decoder" that of a VAE, whose decode() is no forward. `mode` is torch.compile's:
    "reduce-overhead" and "max-autotune" launch what is compiled as one CUDA graph, whose activations stay in memory of
    their own. `dynamic` compiles for any size at once instead of anew for each. `limit` is how many sizes and kinds of
    a block may be compiled; beyond, torch would go on uncompiled.

    It costs a first call that takes longer by seconds to minutes, "max-autotune" by many more than is shown, and the
    last bits: pictures of one seed change. So it is never picked by itself. Memory is priced as without it, which is an
    upper bound but for CUDA graphs: what is not written is not allocated.

    A training step is compiled too, forward and backward, beside gradient_checkpointing by its blocks. Where gradients
    are added up it holds those of one compiled module more than uncompiled. Wrap what is compiled in
    DistributedDataParallel, never what is wrapped already: that is refused. Batches of other lengths compile anew until
    the compiler takes a length for one that varies, mostly at the second. Weights of a compiled module whose results
    nothing uses have gradients of zeros, where uncompiled they have none.

    Traps: another LoRA, size or batch compiles anew (enable_lora_hotswap() before the first LoRA keeps it from that);
    it is applied last, and reading a compiled module's attributes does not run it.
    """

    component: str
    region: str = BLOCKS
    mode: str = MODES[0]
    dynamic: bool = False
    limit: int = 64

    name: ClassVar[str] = "compile"
    also_for: ClassVar[tuple[Purpose, ...]] = (Purpose.TRAINING,)
    opt_in: ClassVar[str] = "its first call takes longer than many calls save, and last bits of what comes out change"

    @property
    def seats(self) -> frozenset[Seat]:
        """Whether this component is compiled."""
        return frozenset({Seat(Decision.COMPILATION, self.component)})

    @classmethod
    def needed(cls) -> str:
        """Triton and a C compiler, and devices that triton knows."""
        return f"triton and a C compiler, and {DEVICES}"

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """Denoisers by their blocks where they have some, and decoders."""
        for component in facts.model.components:
            region = cls.measured(component)["region"]
            if component.library == "diffusers" and _modules(component, region, facts.trace):
                yield cls(component.name, region)

    @classmethod
    def measured(cls, component: Component) -> Mapping[str, Any]:
        """Its blocks where the library names some, else its decoder, else the whole."""
        decodes = any(weight.name.startswith(f"{DECODER}.") for weight in component.weights)
        return {"region": BLOCKS if component.regions else DECODER if decodes else WHOLE}

    def refuses(self, run: Run) -> str | None:
        """Refuses machines without what the compiler needs, and what would break its graph at every layer."""
        component = run.facts.model.component(self.component)
        if self.region not in REGIONS or self.mode not in MODES:
            return f"region is one of {', '.join(REGIONS)}, and mode one of {', '.join(MODES)}"
        if component.library != "diffusers":
            return f"{self.name} is for models of diffusers, and {component.class_name} is none"
        if self.region == BLOCKS and not component.regions:
            return f"{component.class_name} names no repeated blocks to compile: set region={WHOLE}"
        if not _modules(component, self.region, run.facts.trace):
            return f"this call does not run the {self.region} of {component.name} as a module"
        own = self._guidance(run) or self._step(run) or lacking(run.facts.machine, self.name)
        return own or self._format(run) or self._placement(run)

    def _guidance(self, run: Run) -> str | None:
        """The sentence about a whole component before whose forward something of memplan's decides by its inputs."""
        ways = sorted(run.variant(self.component) & {HALVED, PAIRED, ZEROED})
        if self.region != WHOLE or not ways:
            return None
        return f"what has {self.component} called {ways[0]} would be compiled with it: set region={BLOCKS}"

    def _step(self, run: Run) -> str | None:
        """The sentence about what a training step cannot have compiled."""
        if not run.facts.training:
            return None
        if self.mode in GRAPHED:
            return (
                f"{self.mode} records CUDA graphs, and what those of a backward hold is not predicted: leave mode out"
            )
        checkpoints = any(way.startswith(f"{CHECKPOINTED}:") for way in run.variant(self.component))
        if self.region != BLOCKS and checkpoints:
            return f"blocks of {self.component} that are checkpointed are compiled one by one: set region={BLOCKS}"
        return None

    def _format(self, run: Run) -> str | None:
        """The sentence about weights in whose format nothing would be fused."""
        broken = BROKEN.get(run.stored(self.component).format or "")
        return broken or run.lack(self.component, self.name)

    def _placement(self, run: Run) -> str | None:
        """The sentence about weights that come and go, or compute elsewhere."""
        placement = run.placement(self.component)
        if isinstance(placement, Aside | OnHost):
            return f"{self.component} does nothing on the device"
        layered = isinstance(placement, InGroups | FromDisk) and placement.level in ("leaf_level", SEQUENTIAL)
        layered = layered or (isinstance(placement, Partly) and placement.level == "leaf_level")
        if layered:
            return "hooks that move single layers keep the compiler out of each of them: offload by blocks, or whole"
        if self.mode in GRAPHED and isinstance(placement, InGroups | FromDisk | OnCall | OnDemand | Partly):
            return f"{self.mode} records CUDA graphs, for which weights must stay where they are"
        return None

    def redraw(self, run: Run) -> Run:
        """These modules are compiled."""
        modules = _modules(run.facts.model.component(self.component), self.region, run.facts.trace)
        return run.compile(self.component, Compiled(modules, self.mode in GRAPHED))

    def apply(self, pipe: Any, device: str) -> Undo:
        """Has the modules compiled when they are called next. Raises BadInput for those that are compiled already."""
        import torch._dynamo

        modules = list(_parts(getattr(pipe, self.component), self.region))
        if any(module._compiled_call_impl is not None for module in modules):
            raise BadInput(f"{self.component} is compiled already: load it anew")
        with ExitStack() as undos:
            undos.callback(raised(torch._dynamo.config, self.limit))
            for module in modules:
                undos.callback(attributes(module, "_compiled_call_impl"))
                module.compile(**self._settings())
            return undos.pop_all().close

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """A line of torch's or of diffusers'."""
        part, given = f"pipe.{self.component}", ", ".join(f"{k}={v!r}" for k, v in self._settings().items())
        config = f"torch._dynamo.config.{LIMIT}"
        methods = {BLOCKS: "compile_repeated_blocks", WHOLE: "compile", DECODER: "decoder.compile"}
        limit = f"{config} = max({config}, {self.limit})"
        return "import torch._dynamo", limit, f"{part}.{methods[self.region]}({given})"

    def _settings(self) -> dict[str, Any]:
        chosen = {"mode": self.mode} if self.mode != MODES[0] else {}
        return chosen | ({"dynamic": True} if self.dynamic else {})


def _parts(part: Any, region: str) -> Iterator[Any]:
    """The modules of a live component that are compiled, as `compile_repeated_blocks` of diffusers finds them."""
    if region == BLOCKS:
        named = getattr(part, "_repeated_blocks", None) or ()
        yield from (module for module in part.modules() if type(module).__name__ in named)
    else:
        yield part.decoder if region == DECODER else part


def _modules(component: Component, region: str, trace: Trace) -> tuple[str, ...]:
    """The modules of `component` that would be compiled and are called."""
    calls = [call for call in trace.calls if call.component == component.name]
    if region == DECODER:
        return (DECODER,) if any(DECODER in call.modules for call in calls) else ()
    forward = any(call.method == "forward" for call in calls)
    return (component.regions if region == BLOCKS else ("",)) if forward else ()
