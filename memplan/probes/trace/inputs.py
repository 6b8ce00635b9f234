"""Pictures for a dry run: those that are given as a size or a path, and those that a pipeline needs and nobody gave.

What a picture shows does not matter to memory, only its size does.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from memplan.errors import BadInput
from memplan.probes.fakes.sizes import SIZE

FRAMES = 16
"""Frames of a made-up video where neither the call nor the pipeline says how many."""
MOST = 2**28
"""Most pixels, over all frames, of a picture that is made up."""
_PICTURES = ("image", "mask_image", "control_image", "video")
"""Names of pictures whose annotation does not say so."""
_VIDEOS = ("video", "frames")
_DERIVED = ("latents", "embeds", "embeddings", "negative")
_ADAPTED = "ip_adapter"


def pictures(pipe: Any) -> list[inspect.Parameter]:
    """The parameters of the pipeline's call that take a picture or a video.

    Those of IP-Adapters come last, and only where an image encoder is loaded, without which there is no adapter.
    """
    parameters = inspect.signature(type(pipe).__call__).parameters.values()
    found = [p for p in parameters if _is_picture(p)]
    adapted = [p for p in found if p.name.startswith(_ADAPTED)] if getattr(pipe, "image_encoder", None) else []
    return [p for p in found if not p.name.startswith(_ADAPTED)] + adapted


def _is_picture(parameter: inspect.Parameter) -> bool:
    if any(word in parameter.name for word in _DERIVED):
        return False
    return parameter.name in _PICTURES or "PIL.Image" in str(parameter.annotation)


def read(pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`arguments` with pictures in place of sizes ("768x512", of videos "832x480x81") and of paths.

    Raises BadInput for a text that is neither.
    """
    names = {p.name for p in pictures(pipe)}
    given = ((name, value) for name, value in arguments.items() if name in names)
    return {**arguments, **{name: _read(name, value) for name, value in given if isinstance(value, str | Path)}}


def _read(name: str, value: str | Path) -> Any:
    size = SIZE.fullmatch(str(value).strip())
    if size:
        width, height, frames = (int(number) if number else None for number in size.groups())
        return _made(name, width or 0, height or 0, frames)
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(Path(value).expanduser()) as opened:
            return opened.convert("L" if _is_mask(name) else "RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadInput(
            f"{name} is {str(value)!r}, which is neither a size, as in {name}=768x512, nor a picture: {error}"
        ) from error


def attempts(pipe: Any, arguments: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Which pictures to make up, until the pipeline accepts the call, and whether an optional one is among them.

    First those without a default, then also those that its documentation does not call optional, then also one
    optional picture after the other.
    """
    absent = [p for p in pictures(pipe) if p.name not in arguments]
    demanded = tuple(p.name for p in absent if p.default is p.empty)
    yield demanded, False
    optional = [p.name for p in absent if p.default is not p.empty and _is_optional(pipe, p.name)]
    needed = tuple(p.name for p in absent if p.name not in optional)
    if needed != demanded:
        yield needed, False
    yield from (((*needed, name), True) for name in optional)


def _is_optional(pipe: Any, name: str) -> bool:
    documented = re.search(rf"^\s*{name}\s*\((.*)\)\s*:", type(pipe).__call__.__doc__ or "", re.MULTILINE)
    return name.startswith(_ADAPTED) or (documented is not None and "optional" in documented[1])


def made_up(pipe: Any, names: tuple[str, ...], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A picture of the call's size, or of the pipeline's, for each of `names`; several where several are taken."""
    if not names:
        return {}
    width, height = _size(pipe, arguments)
    frames = arguments.get("num_frames") or _default(pipe, "num_frames") or FRAMES
    hints = "control_image" if any(p.name == "control_image" for p in pictures(pipe)) else "image"
    made = {name: _made(name, width, height, frames if _is_video(name) else None) for name in names}
    several = _conditions(pipe)
    return {name: [value] * several if several and name == hints else value for name, value in made.items()}


def describe(value: Any, *, invented: bool = False) -> str | None:
    """A picture, or a list of them, in words; None for anything else."""
    pages = list(value) if isinstance(value, list | tuple) else [value]
    if not pages or not all(hasattr(page, "getbands") for page in pages):
        return None
    width, height = pages[0].size
    article = "a made-up" if invented else "a"
    if len(pages) == 1:
        return f"{article} {width} x {height} picture"
    return f"{len(pages)} {'made-up ' if invented else ''}pictures of {width} x {height}"


def _made(name: str, width: int, height: int, frames: int | None) -> Any:
    if not 0 < prod((width, height, frames or 1)) <= MOST:
        raise BadInput(f"{name} of {width} x {height} x {frames or 1} pixels cannot be made up: at most {MOST:,}")
    from PIL import Image

    picture = Image.new("L", (width, height), 255) if _is_mask(name) else Image.new("RGB", (width, height))
    return [picture] * frames if frames else picture


def _is_mask(name: str) -> bool:
    return "mask" in name


def _is_video(name: str) -> bool:
    return name.endswith(_VIDEOS)


def _conditions(pipe: Any) -> int:
    """How many pictures a bundle of ControlNets or adapters takes; 0 where there is no bundle."""
    for part in (getattr(pipe, "controlnet", None), getattr(pipe, "adapter", None)):
        bundle = getattr(part, "nets", None) or getattr(part, "adapters", None)
        if bundle is not None:
            return len(bundle)
    return 0


def _size(pipe: Any, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height of the call, of the pipeline's signature, or of what its denoiser was trained on."""
    width, height = (arguments.get(name) or _default(pipe, name) for name in ("width", "height"))
    if width and height:
        return width, height
    trained_height, trained_width = _trained_on(pipe)
    return width or trained_width, height or trained_height


def _default(pipe: Any, name: str) -> int | None:
    parameter = inspect.signature(type(pipe).__call__).parameters.get(name)
    return parameter.default if parameter is not None and isinstance(parameter.default, int) else None


def _trained_on(pipe: Any) -> tuple[int, int]:
    """Height and width in pixels that the pipeline takes by itself."""
    scale = getattr(pipe, "vae_scale_factor", None) or getattr(pipe, "vae_scale_factor_spatial", None) or 8
    sample: Any = getattr(pipe, "default_sample_size", None)
    for name in ("unet", "transformer"):
        config = getattr(getattr(pipe, name, None), "config", None)
        sample = sample or getattr(config, "sample_size", None)
    if not sample:
        raise BadInput(f"{type(pipe).__name__} does not say how large its pictures are: give height and width")
    height, width = (sample, sample) if isinstance(sample, int) else sample
    return int(height * scale), int(width * scale)
