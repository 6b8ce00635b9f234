"""The settings by which diffusers' VAEs are told how large the pieces are in which they work, in space and in time.

All settings of one kind are multiples of one another, and pieces of another size have all of them scaled. Both the dry
run and the technique ask here, so that what is priced is what is done.
"""

from collections.abc import Iterable
from fractions import Fraction
from math import gcd, lcm
from typing import Any

from memplan.errors import BadInput

PIXELS = ("size", "height", "width")
"""How the names of settings end that count pixels, or what stands for them in a latent."""
DENOMINATOR = 1000
"""Overlaps are fractions such as 1/6, which a float only comes near."""
SWITCH = "use_framewise_decoding"
"""The setting that has a VAE decode some frames at a time; others always do, or never."""
STRETCH = "tile_sample_min_num_frames"
"""Frames of the video in one of the stretches that overlap."""
BATCH = ("num_latent_frames_batch_size", "num_sample_frames_batch_size")
"""Frames of the latent and of the video in one of the batches that do not."""


def tiles(vae: Any, tile: int) -> dict[str, int]:
    """The settings of `vae` that make the longer side of its tiles `tile` pixels, and the overlaps in proportion.

    Raises BadInput for a VAE without such settings, and for a size by which tiles would not meet at their seams.
    """
    named = {name: size for name, size in vars(vae).items() if _in_pixels(name) and isinstance(size, int)}
    sides = [size for name, size in named.items() if name.startswith("tile_sample_min_")]
    if not sides:
        raise BadInput(f"{type(vae).__name__} has no size of tiles to set")
    lengths = [length for name, size in named.items() for length in _lengths(vae, name, size)]
    return _scaled(
        named,
        tile,
        max(sides),
        lengths,
        f"tiles of {type(vae).__name__} come in multiples of {{}} pixels, by which they meet",
    )


def _in_pixels(name: str) -> bool:
    return name.startswith("tile_") and name.endswith(PIXELS) and "factor" not in name


def _lengths(vae: Any, name: str, size: int) -> Iterable[Fraction]:
    """What must be whole for tiles to meet: a setting, the overlap that a factor makes of it, both in the latent."""
    if not name.startswith("tile_sample_"):
        return (Fraction(size),)
    axis = name.rpartition("_")[2]
    factor = getattr(vae, f"tile_overlap_factor_{axis}", getattr(vae, "tile_overlap_factor", 0))
    overlap = size * Fraction(factor).limit_denominator(DENOMINATOR)
    return Fraction(size), size / _compression(vae), overlap, overlap / _compression(vae)


def _compression(vae: Any) -> Fraction:
    """Pixels for each one of the latent."""
    known = getattr(vae, "spatial_compression_ratio", None) or getattr(vae, "spatial_scale_factor", None)
    if known:
        return Fraction(known)
    end = next(end for end in PIXELS if hasattr(vae, f"tile_latent_min_{end}"))
    pixels, latents = getattr(vae, f"tile_sample_min_{end}"), getattr(vae, f"tile_latent_min_{end}")
    if pixels % latents:
        raise BadInput(f"{type(vae).__name__} takes {latents} of its latent for {pixels} pixels, which do not fit")
    return Fraction(pixels, latents)


def unbatched(vae: Any) -> str | None:
    """Why nothing can be set about how many frames `vae` decodes at a time, or None.

    Mochi's has a method for it, as what its convolutions keep from batch to batch asks for another padding: the switch
    alone gives other pictures, and in diffusers 0.42 decoding fails after the method.
    """
    kind = type(vae).__name__
    if not hasattr(vae, SWITCH) and not hasattr(vae, BATCH[0]):
        return f"nothing can be set about how many frames {kind} decodes at a time"
    if hasattr(vae, f"_enable_{SWITCH.removeprefix('use_')}"):
        return f"{kind} loses what carries over from batch to batch of frames, so that later frames would be wrong"
    if not _overlapping(vae) and not all(hasattr(vae, name) for name in BATCH):
        return f"memplan does not know by which settings {kind} decodes some frames at a time"
    return None


def _overlapping(vae: Any) -> bool:
    return hasattr(vae, "_temporal_tiled_decode") and hasattr(vae, STRETCH)


def frames(vae: Any, count: int) -> dict[str, int]:
    """The settings of `vae` that have it decode `count` frames of the video at a time, 0 for as many as it would.

    Some have stretches of frames that overlap, others batches that do not. Raises BadInput for a VAE of another kind,
    and for a number that is not that of whole frames of the latent.
    """
    reason = unbatched(vae)
    if reason:
        raise BadInput(reason)
    switch = {SWITCH: True} if hasattr(vae, SWITCH) else {}
    if not count:
        return dict(switch)
    overlapping = _overlapping(vae)
    start, own = ("tile_", STRETCH) if overlapping else ("num_", BATCH[1])
    named = {name: number for name, number in vars(vae).items() if name.startswith(start) and "frames" in name}
    compression = getattr(vae, "temporal_compression_ratio", 1) if overlapping else 1  # batches name both numbers
    lengths = [Fraction(number, ratio) for number in named.values() for ratio in (1, compression)]
    return switch | _scaled(
        named, count, named[own], lengths, f"{type(vae).__name__} decodes frames in multiples of {{}}"
    )


def _scaled(named: dict[str, int], wanted: int, own: int, lengths: Iterable[Fraction], rule: str) -> dict[str, int]:
    """The settings `named` times `wanted` / `own`, by which all `lengths` must stay whole, or become so."""
    parts = list(lengths)
    common = lcm(*(length.denominator for length in parts))
    step = own * common // gcd(*(int(length * common) for length in parts))
    if wanted <= 0 or wanted % step:
        raise BadInput(f"{rule.format(step)}; {wanted} is none")
    return {name: size * wanted // own for name, size in named.items()}
