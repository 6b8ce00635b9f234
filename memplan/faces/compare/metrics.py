"""How far two outputs are apart: SSIM, PSNR and SNR as torchmetrics has them, and LPIPS where it can be had."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from memplan.errors import Unsupported
from memplan.faces.compare.values import Value

NEEDED = 'memplan compare needs torchmetrics: pip install "memplan[compare]"'
SMALLEST, SMALLEST_FOR_LPIPS = 6, 64
"""Pixels below which a side of a picture is too short: for SSIM's window at its border, and for AlexNet's layers."""
WAVE = 2.0
"""From the least to the most that a sample of sound can be, -1 to 1, which its PSNR is of."""
COLOURS = 3
Lpips = Callable[[torch.Tensor, torch.Tensor], float]


@dataclass(frozen=True)
class Likeness:
    """How far an output with the plan is from the one without.

    `equal` is bit by bit. `most` is the largest difference of one number, of pictures between 0 and 1. `psnr` and `snr`
    are in dB, infinite where both are equal; `ssim` is 1 where they are, `lpips` 0. None is what the output has not:
    pictures have no SNR, sound no SSIM, other arrays an SNR alone. `why` says why nothing could be compared, else "".
    """

    seed: int
    output: str
    item: int
    frame: int | None
    kind: str
    equal: bool = False
    most: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    snr: float | None = None
    lpips: float | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """Output and number, without the frame."""
        return f"{self.output} {self.item}"


def check() -> None:
    """Raises Unsupported where torchmetrics is missing."""
    if find_spec("torchmetrics") is None:
        raise Unsupported(NEEDED)


def likeness(seed: int, before: Value | None, after: Value | None, lpips: Lpips | None = None) -> Likeness:
    """The figures of one output on both sides, of which one may lack it."""
    there = before or after
    assert there is not None
    place = (seed, *there.place, there.kind)
    if before is None or after is None:
        return Likeness(*place, why="the plan gives none" if before else "the plan alone gives it")
    why = _apart(before, after)
    if why:
        return Likeness(*place, why=why)
    one, other = before.unit, after.unit
    if same(one, other):
        return Likeness(*place, **_of_equals(before.kind, measured=lpips is not None))
    why = _broken(one, other)
    if why:
        return Likeness(*place, why=why)
    figures: dict[str, Any] = {"most": float((one - other).abs().max()), **_FIGURES[before.kind](one, other)}
    if lpips and before.kind == "picture" and min(one.shape[-2:]) >= SMALLEST_FOR_LPIPS:
        figures["lpips"] = lpips(one, other)
    return Likeness(*place, **figures)


def _apart(before: Value, after: Value) -> str:
    """Why two outputs are of other kinds, in a few words; "" where they are not."""
    if before.data.shape != after.data.shape:
        shapes = (" x ".join(map(str, one.data.shape)) for one in (before, after))
        return "of {} without and of {} with the plan".format(*shapes)
    return "" if before.kind == after.kind else f"{before.kind} without and {after.kind} with the plan"


def _broken(one: torch.Tensor, other: torch.Tensor) -> str:
    """How many numbers of a side are infinite or none at all, which no figure can tell; "" where all are finite."""
    lost = [int((~side.isfinite()).sum()) for side in (one, other)]
    counts = zip(lost, ("without", "with"), strict=True)
    found = ", and ".join(f"{number:,} of {one.numel():,} numbers {word} the plan" for number, word in counts if number)
    return f"not finite: {found}" if found else ""


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two arrays are equal, also in where they hold no number."""
    alike = one.shape == other.shape and one.dtype == other.dtype
    return alike and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _of_equals(kind: str, *, measured: bool) -> dict[str, Any]:
    known: dict[str, dict[str, Any]] = {
        "picture": {"psnr": math.inf, "ssim": 1.0, "lpips": 0.0 if measured else None},
        "sound": {"psnr": math.inf, "snr": math.inf},
        "array": {"snr": math.inf},
    }
    return {"equal": True, "most": 0.0, **known[kind]}


def _of_pictures(one: torch.Tensor, other: torch.Tensor) -> dict[str, float | None]:
    """SSIM has windows of 11 pixels, Gaussian with a deviation of 1.5, as Wang et al. 2004 (torchmetrics' defaults)."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    small = min(one.shape[-2:]) < SMALLEST
    ssim: Any = None if small else structural_similarity_index_measure(other[None], one[None], data_range=1.0)
    return {"psnr": _psnr(one, other, 1.0), "ssim": None if small else float(ssim)}


def _of_sound(one: torch.Tensor, other: torch.Tensor) -> dict[str, float | None]:
    return {"psnr": _psnr(one, other, WAVE), **_of_arrays(one, other)}


def _of_arrays(one: torch.Tensor, other: torch.Tensor) -> dict[str, float | None]:
    from torchmetrics.functional.audio import signal_noise_ratio

    return {"snr": float(signal_noise_ratio(other.flatten(), one.flatten()))}


def _psnr(one: torch.Tensor, other: torch.Tensor, most: float) -> float:
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return float(peak_signal_noise_ratio(other, one, data_range=most))


_FIGURES = {"picture": _of_pictures, "sound": _of_sound, "array": _of_arrays}


# ---- LPIPS -----------------------------------------------------------------------------------------------------------
def without_lpips(every: Iterable[Likeness], why: str) -> tuple[str, ...]:
    """Why pictures have no LPIPS; () where all have, or there is none. `why` is what find_lpips() said."""
    lacking = any(one.kind == "picture" and one.lpips is None and not one.why for one in every)
    small = f"LPIPS is not given of pictures with a side under {SMALLEST_FOR_LPIPS} pixels"
    return (why or small,) if lacking else ()


def find_lpips(*, download: bool = False) -> tuple[Lpips | None, str]:
    """LPIPS with AlexNet, or None and a sentence that says why not. Only with `download` weights are fetched."""
    if find_spec("lpips") is None:
        return None, "LPIPS is not given: the package lpips is not installed (pip install lpips)"
    file = _weights()
    if not (download or file.is_file()):
        return None, f"LPIPS is not given: {file} is not there, and is downloaded only where --lpips asks for it"
    from lpips import LPIPS

    network = LPIPS(net="alex", verbose=False).eval()

    @torch.no_grad()
    def lpips(one: torch.Tensor, other: torch.Tensor) -> float:
        both = [side.float().expand(COLOURS, -1, -1)[None] if len(side) == 1 else side[None].float()[:, :COLOURS]
                for side in (one, other)]  # fmt: skip
        return float(network(*both, normalize=True))

    return lpips, ""


def _weights() -> Path:
    """Where torch keeps AlexNet's once they are downloaded; the rest of LPIPS is in its package."""
    from torchvision.models import AlexNet_Weights

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(AlexNet_Weights.IMAGENET1K_V1.url).name
