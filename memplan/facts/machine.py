"""The machine a plan is made for."""

from dataclasses import dataclass

from memplan.facts import notebook
from memplan.facts.limits import NO_LIMITS, Limits
from memplan.facts.rates import USUAL, Rates

ASSUMED_CAPABILITY = (8, 9)
"""The compute capability that is taken for granted of a CUDA card of which it is not known."""


@dataclass(frozen=True)
class Gpu:
    """One accelerator, present or named by the user.

    `free` is what a new process could allocate before any reserve of the user's: total less what others hold.
    `rates` are dense datasheet FLOP/s by dtype, `link` the host link's bytes/s in one direction. `source` says where
    the figures come from: "nvml", "torch", "catalogue" or "user". `kind` is "cuda", "rocm", "xpu" or "mps", `arch` the
    target of AMD's compiler, e.g. "gfx942". `unified` memory is the host's own: one pool for both. `lacks` names dtypes
    that the device cannot compute in. `namesakes` are the cards that the name which was given could mean too; `resized`
    is whether the user gave another memory than the card's own.
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
    arch: str = ""
    lacks: tuple[str, ...] = ()
    namesakes: tuple[str, ...] = ()
    resized: bool = False

    @property
    def is_here(self) -> bool:
        """Whether it is in this machine; of what is installed in another one nothing is known."""
        return self.source in ("nvml", "torch")

    @property
    def held_by_others(self) -> int:
        """Bytes of device memory that other processes and the driver hold now."""
        return self.total - self.free


@dataclass(frozen=True)
class Host:
    """Host memory and disk.

    `limit` is the lowest cgroup limit above this process, or None. `pinnable` is how much a device may have pinned, or
    None where nothing but the memory itself limits it. `swap` is shown, and no plan counts on it. `system` is "Linux",
    "WSL", "Windows" or "Darwin", and "" for a host that the user describes.
    """

    total: int
    available: int
    limit: int | None = None
    disk_free: int | None = None
    source: str = "user"
    swap: int = 0
    pinnable: int | None = None
    system: str = ""


@dataclass(frozen=True)
class Learned:
    """What measured runs of a kind of pipeline teach about one machine.

    Of so many `runs` those that are `over` took more device memory than was predicted, by at most `margin` bytes. Calls
    took `pace` times as long as predicted.
    """

    runs: int = 0
    over: int = 0
    margin: int = 0
    pace: float = 1.0


NOTHING_LEARNED = Learned()


@dataclass(frozen=True)
class Machine:
    """The machine a plan is made for. `reserve` is device memory the user wants kept free for others.

    `packages` are the installed ones, of those that techniques need, with their versions. `rates` say how fast it is,
    `limits` what of it the user allows, and `learned` by how much predictions were too low here: that is kept free,
    and `rates` have its pace.
    """

    gpu: Gpu | None
    host: Host
    reserve: int = 0
    packages: tuple[tuple[str, str], ...] = ()
    rates: Rates = USUAL
    limits: Limits = NO_LIMITS
    learned: Learned = NOTHING_LEARNED

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        return notebook.machine(self)

    @property
    def unified(self) -> bool:
        """Whether device and host draw on one pool, `ram`."""
        return self.gpu is not None and self.gpu.unified

    @property
    def vram(self) -> int:
        """Device memory a plan may use; of a unified one no more than the host has available."""
        if self.gpu is None:
            return 0
        free = min(self.gpu.free, self.host.available) if self.unified else self.gpu.free
        return max(_least(max(free - self.reserve, 0), self.limits.vram) - self.learned.margin, 0)

    @property
    def vram_limited(self) -> bool:
        """Whether that is what the user's limit leaves, and not the card."""
        return self.limits.vram is not None and self.vram == max(self.limits.vram - self.learned.margin, 0)

    @property
    def ram(self) -> int:
        """Host memory a plan may use."""
        return _least(self.host.available, self.limits.ram)

    @property
    def pinnable(self) -> int:
        """Host memory a plan may pin."""
        return self.ram if self.host.pinnable is None else min(self.ram, self.host.pinnable)


def _least(there: int, allowed: int | None) -> int:
    return there if allowed is None else min(there, allowed)
