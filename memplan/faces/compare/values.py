"""The outputs of a call, one by one: pictures, frames of videos, sound, and other arrays."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch

SOUND = ("audio", "audios")
"""Names of outputs that are waves."""
LATENT = "latent"
"""The output_type of a call that decodes nothing."""
CHANNELS = (1, 3, 4)
"""How many a picture may have."""
SHOWN, WIDE = ("L", "RGB", "RGBA"), ("I", "F")
"""Modes of Pillow with the same channels, and what those of more than 8 bits begin with."""
PICTURE, BATCH, VIDEOS = 3, 4, 5
"""Dimensions of one picture, of several, and of several videos."""


@dataclass(frozen=True, eq=False)
class Value:
    """One picture, frame or array of an output, on the CPU.

    `kind` is "picture", of channels (grey, RGB or RGBA), height and width, whose values are 0 to 255 in uint8 or else 0
    to 1; or "sound"; or "array". `item` counts within the output, `frame` within a video, None where there is none.
    """

    output: str
    item: int
    frame: int | None
    kind: str
    data: torch.Tensor

    @property
    def place(self) -> tuple[str, int, int | None]:
        """Where it stands among the outputs of its call."""
        return self.output, self.item, self.frame

    @property
    def unit(self) -> torch.Tensor:
        """As float64, of pictures within 0 to 1."""
        whole = self.data.double()
        return whole / 255 if self.kind == "picture" and self.data.dtype == torch.uint8 else whole


def values(result: Any, call: Mapping[str, Any]) -> tuple[Value, ...]:
    """What a pipeline returned for `call`. What is no picture and no array, as flags are, is left out."""
    decoded = call.get("output_type") != LATENT
    return tuple(one for name, output in _outputs(result) for one in _read(name, output, decoded=decoded))


def _outputs(result: Any) -> Iterable[tuple[str, Any]]:
    """By name; those of a tuple by number, and what a ModularPipeline returns by itself as "output"."""
    if isinstance(result, Mapping):
        return result.items()
    if isinstance(result, tuple):
        return ((f"output {i}", value) for i, value in enumerate(result))
    made = getattr(result, "values", None)  # the state of a ModularPipeline
    if isinstance(made, Mapping):
        return ((name, made[name]) for name in ("images", "videos", "audio") if name in made)
    return (("output", result),)


def _read(name: str, output: Any, *, decoded: bool) -> Iterator[Value]:
    plain, number = (None if decoded else "array"), count()
    kind = "sound" if name in SOUND else plain
    for group in output if isinstance(output, list | tuple) else (output,):
        frames = isinstance(group, list | tuple) and len(group) > 0 and hasattr(group[0], "getbands")
        if frames:
            item = next(number)
            yield from (Value(name, item, i, *_picture(page)) for i, page in enumerate(group))
        elif hasattr(group, "getbands"):
            yield Value(name, next(number), None, *_picture(group))
        elif hasattr(group, "shape"):
            single = isinstance(output, list | tuple)
            yield from _array(name, number, _moved(group), kind, single=single, last=not torch.is_tensor(group))


def _moved(array: Any) -> torch.Tensor:
    """A copy: a pipeline may write into what it has returned."""
    return torch.as_tensor(array).detach().to("cpu", copy=True)


def _picture(page: Any) -> tuple[str, torch.Tensor]:
    """Kind and data of an image of Pillow; modes of more than 8 bits, as those of depth, are arrays."""
    import numpy

    if page.mode[0] in WIDE:
        return "array", torch.from_numpy(numpy.array(page).astype("float64"))
    shown = page if page.mode in SHOWN else page.convert("RGBA" if page.has_transparency_data else "RGB")
    return "picture", torch.from_numpy(numpy.atleast_3d(numpy.array(shown))).permute(2, 0, 1)


def _array(
    name: str, number: "count[int]", data: torch.Tensor, kind: str | None, *, single: bool, last: bool
) -> Iterator[Value]:
    """An array parted into pictures and frames where it is some; `last` says that channels come last."""
    if data.ndim and single:
        data = data[None]
    dims = data.ndim
    channels = data.shape[-1 if last else -PICTURE] if dims >= PICTURE else 0
    if kind is None and dims in (BATCH, VIDEOS) and channels in CHANNELS and _shown(data):
        data = data.movedim(-1, -PICTURE) if last else data
        for one in data:
            item = next(number)
            frames = enumerate(one) if dims == VIDEOS else [(None, one)]
            yield from (Value(name, item, i, "picture", frame) for i, frame in frames)
    elif dims:
        yield from (Value(name, next(number), None, kind or "array", one) for one in data)


def _shown(data: torch.Tensor) -> bool:
    """Whether values are those of a picture; of what is not a number that cannot be told."""
    if data.dtype == torch.uint8:
        return True
    known = data[torch.isfinite(data)] if data.is_floating_point() else data
    return data.is_floating_point() and (not known.numel() or bool((known >= 0).all() and (known <= 1).all()))
