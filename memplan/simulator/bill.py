"""What a run costs: the one result type of the simulator."""

from dataclasses import dataclass
from functools import cached_property

from memplan.facts.limits import EXACT, NEAR_LOSSLESS, SLIGHT, UNPREDICTED, VISIBLE
from memplan.facts.units import amount, duration


@dataclass(frozen=True)
class Memory:
    """Device memory in bytes.

    `allocated` is what `torch.cuda.max_memory_allocated` reports and `reserved` what `max_memory_reserved` reports on
    a card with room to spare. `required` is what the card must have: the segments that are in use at the peak, as the
    allocator gives the others back under pressure, and the device context.
    """

    allocated: int
    reserved: int
    required: int


@dataclass(frozen=True)
class Peak:
    """The highest moment of one phase: what is held, in bytes, and the module and op that make it.

    `weights` are stored weights resident then, `copies` the transient casts beside them, `activations` all else that
    tensors hold, op workspace included; their sum and the libraries' own workspace is `memory.allocated`. `host` is
    the most host memory held in the phase, not always in the same moment: what model offload has on the device is not
    in it, what groups have there is. A call that the CPU computes holds nothing on the device, and has no op. `seconds`
    are those of the whole phase. `states` are what an optimizer holds from one training step to the next, averages of
    the weights among them; gradients count as activations.
    """

    phase: str
    component: str
    memory: Memory
    weights: int
    copies: int
    activations: int
    module: str
    op: str
    host: int
    seconds: float = 0.0
    states: int = 0


@dataclass(frozen=True)
class HostMemory:
    """Host memory in bytes: of weights and libraries between calls, all at most, and pinned (part of both).

    It is at most what is held while applying, or beside the weights: in a call that the CPU computes, or where the
    pipeline makes pictures.
    """

    steady: int
    peak: int
    pinned: int


@dataclass(frozen=True)
class Traffic:
    """Bytes that one pipeline call moves: over the host link in each direction, and through weight casts."""

    to_device: int
    to_host: int
    cast: int

    @property
    def link(self) -> int:
        """Bytes over the link in both directions."""
        return self.to_device + self.to_host


@dataclass(frozen=True)
class Loss:
    """Loss of precision: the expected relative weight error (0 is exact), weighted by parameters, and its word.

    `tiles` is 0 where every picture is made whole, 1 for tiles of the library's size or a larger one, and for frames
    that are decoded some at a time, 2 for smaller tiles. Each tile is normalised by itself and blended with its
    neighbours, so that no tiled picture is that of the whole. How far it is off depends on the picture, and no figure
    is given. Nor is there one of attention that is computed `rounded`, in 8 bits, or where results of earlier steps
    stand in for later ones, as `cached` says.
    """

    error: float
    tiles: int = 0
    rounded: bool = False
    cached: bool = False

    @property
    def word(self) -> str:
        """ "exact", "near-lossless", "slight" or "visible"; "not predicted" with a step cache."""
        if self.cached:
            return UNPREDICTED
        limits = ((NEAR_LOSSLESS, 0.012), (SLIGHT, 0.06))
        exact = not (self.error or self.tiles or self.rounded)
        return EXACT if exact else next((word for word, limit in limits if self.error <= limit), VISIBLE)


@dataclass(frozen=True, repr=False)
class Bill:
    """The price of a run.

    `host_flops` are the floating-point operations that the CPU does in one pipeline call, in components' place on the
    device. `loading` is the highest moment before the call: while the pipeline is loaded
    and the plan is applied; its `seconds` are those of all of that. `compiling` and `fetching` are seconds that the
    first call takes beside its own: for compiled components, and for weights that come for the first time. `encoding`
    are those that a call with a new prompt takes besides, where prompts are reused. `read_again` are bytes of files
    that each call reads from the disk anew, as host memory has no room to keep them.
    """

    peaks: tuple[Peak, ...]
    host: HostMemory
    traffic: Traffic
    loss: Loss
    host_flops: int = 0
    loading: Peak | None = None
    compiling: float = 0.0
    fetching: float = 0.0
    encoding: float = 0.0
    read_again: int = 0

    def __repr__(self) -> str:
        """Its totals; what each phase holds is in `phases`."""
        return f"<Bill: {self.totals}>"

    @property
    def totals(self) -> str:
        """Seconds, device and host memory, and loss, in words."""
        memory = f"VRAM {amount(self.peak.memory.required)}, RAM {amount(self.host.peak)}"
        return f"{duration(self.seconds)}, {memory}, {self.loss.word}"

    @cached_property
    def seconds(self) -> float:
        """Seconds of one pipeline call once the pipeline is warm; loading is not in it.

        Where prompts are reused it is a call with a known one.
        """
        return sum(peak.seconds for peak in self.peaks)

    @property
    def first(self) -> float:
        """Seconds of the first pipeline call: it compiles, and reads what nothing has read before.

        Starting the device is not in it.
        """
        return self.seconds + self.encoding + self.compiling + self.fetching

    @property
    def phases(self) -> tuple[Peak, ...]:
        """Loading, and the phases of the call."""
        return (*((self.loading,) if self.loading else ()), *self.peaks)

    @cached_property
    def peak(self) -> Peak:
        """The phase that needs the most."""
        return max(self.phases, key=lambda p: p.memory.required)
