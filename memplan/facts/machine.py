"""The machine a plan is made for."""

from dataclasses import dataclass


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
