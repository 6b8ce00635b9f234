"""How far a format rounds the weights at hand: the relative error of each linear layer's matrix, from some of its rows.

What a library does to a weight is imitated, not run: it takes a fraction of the time, and needs no library installed. A
test holds each imitation against the installed ones.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.nn import functional as F

from memplan.facts import Component, Model

ROWS, COLUMNS = 8, 1024
"""Rows of each matrix that are looked at, evenly spaced, and the most of each row that is rounded. Where a few rows
hold larger values than the others, the errors of formats with a scale for each row come out some 15 % off."""
CHUNK = 2**22
"""Elements that are rounded at once, 16 MiB of them."""
BLOCK, GROUP, NVFP4_BLOCK = 64, 128, 16
"""Weights that share a scale in bitsandbytes' 4 bits, in those of others, and in NVIDIA's."""
TINY = 1e-30
"""Stands for a scale or a norm of zero."""
NF4 = (
    -1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
)  # fmt: skip
"""Quantiles of the normal distribution (QLoRA, arXiv 2305.14314, appendix E)."""
_FP4_ABOVE = (0.00520833, 0.16666667, 0.25, 0.33333333, 0.5, 0.66666667, 1.0)
FP4 = (*(-value for value in reversed(_FP4_ABOVE)), 0.0, *_FP4_ABOVE)
"""The values of bitsandbytes' fp4 (`get_4bit_type` in its functional.py)."""

_E2M1_ABOVE = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1 = (*(-value for value in reversed(_E2M1_ABOVE)), 0.0, *_E2M1_ABOVE)
"""The values of two bits of exponent and one of mantissa (OCP Microscaling Formats 1.0, section 5.3.3)."""


@dataclass(frozen=True)
class Sample:
    """Pieces of some rows of matrices, and the largest magnitude in each whole row."""

    pieces: torch.Tensor
    largest: torch.Tensor


def _by_row(of: Sample) -> torch.Tensor:
    """A scale for each row, and bytes."""
    scale = (of.largest / 127.5).clamp(min=TINY)
    return (of.pieces / scale).round_().clamp_(-128, 127).mul_(scale)


def _float8_by_row(of: Sample) -> torch.Tensor:
    """A scale for each row, and float8."""
    scale = (of.largest / torch.finfo(torch.float8_e4m3fn).max).clamp(min=TINY)
    return (of.pieces / scale).to(torch.float8_e4m3fn).float().mul_(scale)


def _by_code(values: tuple[float, ...], of: Sample) -> torch.Tensor:
    """A scale for each block, and the nearest of 16 values."""
    code = torch.tensor(values)
    blocks = _in_groups(of.pieces, BLOCK)
    scale = blocks.abs().amax(-1, keepdim=True).clamp(min=TINY)
    nearest = code[torch.bucketize(blocks / scale, (code[1:] + code[:-1]) / 2)]
    return (nearest * scale).flatten(1)[:, : of.pieces.shape[1]]


def _by_group(of: Sample) -> torch.Tensor:
    """The range of each group in 15 steps."""
    groups = _in_groups(of.pieces, GROUP)
    least, most = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = ((most - least) / 15).clamp(min=TINY)
    return ((groups - least) / step).round_().mul_(step).add_(least).flatten(1)[:, : of.pieces.shape[1]]


def _by_symmetric_group(of: Sample) -> torch.Tensor:
    """The largest magnitude of each group in 7 steps, and one more below."""
    groups = _in_groups(of.pieces, GROUP)
    scale = (groups.abs().amax(-1, keepdim=True) / 7).clamp(min=TINY)
    return (groups / scale).round_().clamp_(-8, 7).mul_(scale).flatten(1)[:, : of.pieces.shape[1]]


def _nvfp4(of: Sample) -> torch.Tensor:
    """A scale in float8 for each block, relative to the largest value there is, and the nearest of 16 values."""
    code, blocks = torch.tensor(E2M1), _in_groups(of.pieces, NVFP4_BLOCK)
    least = (of.largest / E2M1[-1] / torch.finfo(torch.float8_e4m3fn).max).clamp(min=TINY).unsqueeze(-1)
    scale = blocks.abs().amax(-1, keepdim=True) / E2M1[-1] / least
    scale = scale.clamp(min=2**-9).to(torch.float8_e4m3fn).float().mul_(least)
    nearest = code[torch.bucketize(blocks / scale, (code[1:] + code[:-1]) / 2)]
    return (nearest * scale).flatten(1)[:, : of.pieces.shape[1]]


def _in_groups(pieces: torch.Tensor, size: int) -> torch.Tensor:
    return F.pad(pieces, (0, -pieces.shape[1] % size)).unflatten(1, (-1, size))


def _cast(dtype: torch.dtype, of: Sample) -> torch.Tensor:
    return of.pieces.to(dtype).float()


Rounding = Callable[[Sample], torch.Tensor]
_NF4, _FP4 = partial(_by_code, NF4), partial(_by_code, FP4)
FORMATS: Mapping[Rounding, tuple[str, ...]] = MappingProxyType({
    _NF4: ("nf4", "nf4 nested"),
    _FP4: ("fp4", "fp4 nested"),
    _by_row: ("bnb int8", "int8", "int8 dynamic", "quanto int8", "modelopt int8"),
    _float8_by_row: ("float8", "float8 dynamic", "quanto float8"),
    _by_group: ("int4", "quanto int4"),
    _by_symmetric_group: ("modelopt int4",),
    _nvfp4: ("modelopt nvfp4",),
    partial(_cast, torch.float8_e4m3fn): ("float8_e4m3fn",),
    partial(_cast, torch.float8_e5m2): ("float8_e5m2",),
})  # fmt: skip
"""What rounds the weights of which formats. The scales of "nested" ones are rounded too, which adds next to nothing."""


def measured(model: Model, modules: Mapping[str, torch.nn.Module]) -> Model:
    """The same model, with the error of each matrix in each format where the weights are at hand in `modules`."""
    parts = (replace(part, errors=tuple(errors(part, modules.get(part.name)))) for part in model.components)
    return replace(model, components=tuple(parts))


def errors(component: Component, module: torch.nn.Module | None) -> Iterator[tuple[str, tuple[float, ...]]]:
    """For each format the error of each matrix, in the order of `component.matrices()`; none without its weights."""
    named: dict[str, Any] = dict(module.named_parameters()) if module is not None else {}
    weights = [named.get(component.weights[number].name) for number in component.matrices()]
    if not weights or not all(map(_at_hand, weights)):
        return
    with torch.no_grad():
        samples = [_sample(weight) for weight in weights]
        for rounded, formats in FORMATS.items():
            found = tuple(_errors(samples, rounded))
            yield from ((name, found) for name in formats)


def _at_hand(weight: Any) -> bool:
    plain = type(weight) is torch.nn.Parameter and not isinstance(weight.data, FakeTensor)
    return plain and weight.device.type != "meta" and weight.dtype.itemsize > 1 and weight.is_floating_point()


def _sample(weight: Any) -> Sample:
    rows = weight[:: max(len(weight) // ROWS, 1)][:ROWS].float().cpu()
    return Sample(rows[:, :COLUMNS].clone(), rows.abs().amax(1, keepdim=True))


def _errors(samples: list[Sample], rounded: Rounding) -> Iterator[float]:
    """The error of each sample; those of the same shape are rounded together."""
    found: dict[int, float] = {}
    shapes: dict[torch.Size, list[int]] = {}
    for number, sample in enumerate(samples):
        shapes.setdefault(sample.pieces.shape, []).append(number)
    for shape, numbers in shapes.items():
        several = max(CHUNK // shape.numel(), 1)
        for start in range(0, len(numbers), several):
            chunk = numbers[start : start + several]
            parts = [samples[number] for number in chunk]
            both = Sample(torch.cat([part.pieces for part in parts]), torch.cat([part.largest for part in parts]))
            off = (rounded(both) - both.pieces).square_().sum(1).view(len(chunk), -1).sum(1)
            size = both.pieces.square().sum(1).view(len(chunk), -1).sum(1).clamp(min=TINY)
            found.update(zip(chunk, (off / size).sqrt().tolist(), strict=True))
    return (found[number] for number in range(len(samples)))
