"""How fast a machine works."""

from dataclasses import dataclass, replace
from typing import Any

from memplan.facts.trace import ATTENTION, EFFICIENT, ELEMENTWISE, Ops

LIKE = {EFFICIENT: ATTENTION}
"""Whose rate a family of ops has where nobody measured its own."""


@dataclass(frozen=True)
class Rates:
    """What a machine sustains, per second; `source` says where the figures come from.

    `compute` is in FLOP/s by family of ops and dtype, and `fallback` where it says nothing; `bandwidth` in bytes/s of
    device memory, of which elementwise ops sustain the share `eager` where no compiler has fused them: many read with
    strides, or convert what they read. `kernel` are the seconds that any op takes on the device beside its work,
    `launch` those in which the host issues it, `hook` those in which diffusers' hooks issue the copy of one tensor, and
    `dispatch` accelerate's. The link carries `pinned` bytes/s from pinned memory; `to_device` from memory that is not,
    `to_host` into new memory. `pinning` are the bytes/s at which the host copies weights into pinned memory, `disk`
    those of files. The CPU does `on_host` FLOP/s by family of ops and dtype, and `host` where that says nothing.

    Where the defaults come from: `kernel` and `eager` are fitted as the shares in catalogue/rates.py are. `to_device`
    and `to_host` were read off published calls under model and sequential offload, to the nearest round figure. `hook`
    and `dispatch` are what diffusers' group offload and accelerate's hooks took per tensor on one busy machine (53 and
    264 us in a small FLUX transformer). `host` is the order of magnitude of 8 cores: one core of an EPYC with AVX2 does
    11e9 in bfloat16 and 60e9 in float32, measured in linear layers of T5-XXL. `launch`, `pinned`, `pinning`, `disk`,
    and `bandwidth` and `fallback` of an unknown card are assumed.
    """

    compute: tuple[tuple[str, str, float], ...] = ()
    bandwidth: float = 425e9
    kernel: float = 5.8e-6
    launch: float = 10e-6
    hook: float = 50e-6
    dispatch: float = 250e-6
    pinned: float = 20e9
    to_device: float = 10e9
    to_host: float = 3e9
    pinning: float = 10e9
    disk: float = 2e9
    host: float = 1e11
    source: str = "assumption, of a card of the middle range and a usual host"
    fallback: float = 40e12
    on_host: tuple[tuple[str, str, float], ...] = ()
    eager: float = 0.75

    def __hash__(self) -> int:
        """By the first that differ between machines: prices are remembered by rates, and looked up often."""
        return hash((self.bandwidth, self.fallback, self.pinned, self.launch))

    def flops(self, family: str, dtype: str) -> float:
        """FLOP/s of this family on operands of `dtype`; those of `fallback` where nothing is known."""
        return _rate(self.compute, family, dtype) or self.fallback

    def host_flops(self, family: str, dtype: str) -> float:
        """FLOP/s of the CPU for this family on operands of `dtype`; those of `host` where nothing is known."""
        return _rate(self.on_host, family, dtype) or self.host

    def seconds(self, ops: Ops, *, fused: bool = False) -> float:
        """Seconds that the device works on `ops`, by the roofline: as long as the slower of computing and reading."""
        computing = ops.flops / self.flops(ops.family, ops.dtype) if ops.flops else 0.0
        share = self.eager if ops.family == ELEMENTWISE and not fused else 1.0
        return max(computing, ops.traffic / (self.bandwidth * share)) + ops.count * self.kernel

    def slower(self, factor: float) -> "Rates":
        """Those of a machine on which all takes `factor` times as long, but for reading files."""
        speeds = ("bandwidth", "pinned", "to_device", "to_host", "pinning", "host", "fallback")
        times = ("kernel", "launch", "hook", "dispatch")
        changed: dict[str, Any] = {name: getattr(self, name) / factor for name in speeds}
        changed |= {name: getattr(self, name) * factor for name in times}
        for name in ("compute", "on_host"):
            changed[name] = tuple((family, dtype, rate / factor) for family, dtype, rate in getattr(self, name))
        return replace(self, **changed)


def _rate(figures: tuple[tuple[str, str, float], ...], family: str, dtype: str) -> float | None:
    for name in (family, LIKE.get(family)):
        for of, in_dtype, rate in figures:
            if (of, in_dtype) == (name, dtype):
                return rate
    return None


USUAL = Rates()
"""Those of a machine of which nothing is known."""
