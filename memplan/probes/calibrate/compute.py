"""FLOP/s of matrix products, attention and convolutions, in the shapes that diffusion models have."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import conv2d, linear, scaled_dot_product_attention

from memplan.facts import ATTENTION, CONVOLUTION, MATMUL
from memplan.probes.calibrate.clock import Figure, Work, batch, rate, timed

FLOATS = ("float32", "bfloat16", "float16")
EIGHT_BITS = ("float8_e4m3fn", "int8")
"""Dtypes that matrix products alone are done in."""
REPEATS = 6
"""Runs that must fit into the time there is, for a size to be taken."""
TELLING = 0.03
"""Seconds from which a run tells how long a larger one takes; shorter ones are mostly overhead."""


@dataclass(frozen=True)
class Matmul:
    """A linear layer of `inner` to `outer` features on so many rows."""

    rows: int
    inner: int
    outer: int

    def __str__(self) -> str:
        return f"{self.rows} x {self.inner} by {self.inner} x {self.outer}"

    @property
    def flops(self) -> int:
        """A multiplication and an addition each."""
        return 2 * self.rows * self.inner * self.outer

    def work(self, device: str, dtype: str) -> Work:
        """The product; in 8 bits those that torchao's dynamic formats call."""
        rows, weight = _random(device, self.rows, self.inner), _random(device, self.outer, self.inner)
        if dtype == "int8":
            return partial(torch._int_mm, *((30 * t).clamp(-127, 127).to(torch.int8) for t in (rows, weight.t())))
        target: torch.dtype = getattr(torch, dtype)
        if dtype not in EIGHT_BITS:
            return partial(linear, rows.to(target), weight.to(target))
        one, out = torch.ones((), device=device), torch.bfloat16
        return partial(torch._scaled_mm, rows.to(target), weight.to(target).t(), one, one, out_dtype=out)


@dataclass(frozen=True)
class Attention:
    """Of each of `length` tokens to all of them, by so many heads of `dim` channels."""

    heads: int
    length: int
    dim: int

    def __str__(self) -> str:
        return f"{self.length} tokens, {self.heads} heads of {self.dim}"

    @property
    def flops(self) -> int:
        """Two products of a multiplication and an addition each."""
        return 4 * self.heads * self.length**2 * self.dim

    def work(self, device: str, dtype: str) -> Work:
        """PyTorch's own choice of kernel."""
        shape = (1, self.heads, self.length, self.dim)
        query, key, value = (_random(device, *shape).to(getattr(torch, dtype)) for _ in range(3))
        return partial(scaled_dot_product_attention, query, key, value)


@dataclass(frozen=True)
class Convolution:
    """A filter of 3 x 3 on a square picture, from `channels` to as many."""

    channels: int
    size: int

    def __str__(self) -> str:
        return f"{self.channels} channels, {self.size} x {self.size}"

    @property
    def flops(self) -> int:
        """A multiplication and an addition for each weight and pixel."""
        return 2 * 9 * self.channels**2 * self.size**2

    def work(self, device: str, dtype: str) -> Work:
        """The picture as diffusers has it, channels first."""
        target: torch.dtype = getattr(torch, dtype)
        image = _random(device, 1, self.channels, self.size, self.size).to(target)
        return partial(conv2d, image, _random(device, self.channels, self.channels, 3, 3).to(target), padding=1)


Case = Matmul | Attention | Convolution
CASES: dict[str, Sequence[Case]] = {
    MATMUL: (
        Matmul(64, 256, 256),
        Matmul(64, 1024, 1024),
        Matmul(256, 2048, 2048),
        Matmul(1024, 3072, 3072),
        Matmul(4608, 3072, 12288),
    ),
    ATTENTION: (
        Attention(2, 128, 64),
        Attention(8, 256, 64),
        Attention(24, 512, 128),
        Attention(24, 1536, 128),
        Attention(24, 4608, 128),
    ),
    CONVOLUTION: (
        Convolution(32, 32),
        Convolution(64, 64),
        Convolution(128, 128),
        Convolution(256, 256),
        Convolution(256, 512),
    ),
}
"""By family, growing at most 24-fold; the last are those of FLUX.1's transformer and VAE at 1024 x 1024."""


@torch.inference_mode()
def flops(family: str, dtype: str, device: str, seconds: float) -> Figure:
    """FLOP/s of this family on `device`, of the largest case that can be repeated in about `seconds`."""
    case = CASES[family][0]
    work = case.work(device, dtype)
    once = _once(work, device)
    for larger in CASES[family][1:]:
        if once > min(TELLING, seconds / REPEATS) and REPEATS * once * larger.flops / case.flops > seconds:
            break
        case, work = larger, larger.work(device, dtype)
        once = _once(work, device)
    return rate(case.flops, timed(work, device, seconds / 2), _told(case, device))


def _once(work: Work, device: str) -> float:
    """Seconds of a run, the shorter of two: before them one that may load kernels."""
    batch(work, device)
    return min(batch(work, device), batch(work, device))


def _told(case: Case, device: str) -> str:
    threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    return f"{case}{threads}"


def _random(device: str, *shape: int) -> torch.Tensor:
    """Values as weights have them: how much power a card draws, and so its clock, depends on the bits."""
    return torch.randn(*shape, device=device)
