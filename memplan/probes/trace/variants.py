"""Other ways to call a component: in tiles, some frames at a time, attention in slices, another dtype or layout …"""

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import suppress
from itertools import product
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from memplan import pieces
from memplan.errors import BadInput
from memplan.facts import BATCHED, CHANNELS_LAST, IN_SLICES, SLICED, TILED
from memplan.names import DISPATCHED
from memplan.probes.trace.calling import attentions
from memplan.probes.trace.ledger import Recording

SCORES = ("aten._softmax", "aten._safe_softmax", "aten.bmm", "aten.baddbmm")
"""Ops of an attention that holds all its scores. Slices of it are smaller; a fused kernel holds none."""
IGNORED = {"AutoencoderKLCosmos": "takes the setting and ignores it"}
"""diffusers classes whose enable_tiling() changes nothing, nor do their numbers of frames."""
OF_VAES = (TILED, BATCHED)
"""Ways to encode or decode that somebody may ask for; what else is asked for is for denoisers."""
VOLUMES = 5
"""Dimensions of the filters of 3D convolutions."""
REPLACEABLE = ("AttnProcessor", "AttnProcessor2_0", "AttnAddedKVProcessor", "AttnAddedKVProcessor2_0")
"""The library's own attention, which it puts slices in place of."""


# ---- what there is ---------------------------------------------------------------------------------------------------
def lacks(module: Any) -> Iterator[tuple[str, str]]:
    """(technique, sentence) for each way in which `module` cannot be called, or is called already."""
    kind = type(module).__name__
    if hasattr(module, "decode"):
        for technique, setting in (("tiling", "use_tiling"), ("slicing", "use_slicing")):
            # enable_tiling() itself asks for this attribute and raises NotImplementedError without it.
            if not (hasattr(module, f"enable_{technique}") and hasattr(module, setting)):
                yield technique, f"diffusers implements no {technique} for {kind}"
            elif getattr(module, setting):
                yield technique, f"{technique} is on already"
            elif technique == "tiling" and kind in IGNORED:
                yield technique, f"{kind} {IGNORED[kind]}"
    else:
        yield "tiling", f"{kind} has no decode() to tile"
    if not any(hasattr(getattr(part, "processor", None), DISPATCHED) for part in module.modules()):
        yield "attention_backend", f"the attention of {kind} does not go through diffusers' dispatcher"
    unbatched = f"{kind} {IGNORED[kind]}" if kind in IGNORED else pieces.unbatched(module)
    if unbatched:
        yield "frames", unbatched
    flat = _no_images(module)
    if flat:
        yield "channels_last", flat
    unsliced = _unsliced(module)
    if unsliced:
        yield "attention_slicing", unsliced


def _unsliced(module: Any) -> str | None:
    """Why the attention of `module` cannot be sliced."""
    if not hasattr(module, "set_attention_slice"):
        return f"diffusers slices no attention of {type(module).__name__}"
    kinds = [type(part.processor).__name__ for part in attentions(module)]
    if any(kind.startswith("Sliced") for kind in kinds):
        return "its attention is in slices already"
    own = next((kind for kind in kinds if kind not in REPLACEABLE), None)
    return f"slices would take the place of its {own}" if own else None


def _no_images(module: Any) -> str | None:
    """Why the layout of images matters nothing to `module`, or cannot be chosen for all of it."""
    kind = type(module).__name__
    if any(weight.dim() == VOLUMES for weight in module.parameters()):
        return f"{kind} has 3D convolutions, for which no layout of images does"
    convolutions = [part for part in module.modules() if isinstance(part, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    if not any(size > step for part in convolutions for size, step in zip(part.kernel_size, part.stride, strict=True)):
        return f"{kind} has no 2D convolutions but such as cut a picture into patches: it is not made of images"
    return None


# ---- what matters ----------------------------------------------------------------------------------------------------
def others(
    module: Any,
    method: str,
    inputs: Any,
    plain: Recording,
    trace: Callable[[tuple[str, ...]], Recording | None],
    *,
    asked: Set[str] = frozenset(),
) -> dict[tuple[str, ...], Recording]:
    """What `trace` records of a call in each way that holds other memory than the `plain` one, and in several together.

    Slices are tried for several pictures, and slices of attention where the peak is in its scores. What somebody asks
    for is tried besides; of a denoiser it is recorded whatever it holds.
    """
    found: dict[tuple[str, ...], Recording] = {}
    lacking = dict(lacks(module))
    whatever = asked if method == "forward" else frozenset[str]()

    def changes(*ways: str) -> bool:
        recording = trace(ways)
        if recording is None:
            return False
        if len(ways) == 1 and whatever.isdisjoint(ways) and recording.segments() == plain.segments():
            return False
        found[ways] = recording
        return True

    if method in ("decode", "encode"):
        questions = list(_of_a_vae(module, inputs, lacking, asked))
    else:
        sliced = "attention_slicing" not in lacking and plain.peak_op in SCORES
        own = frozenset[str]() if type(module).__module__.startswith("transformers.") else asked
        kinds = sorted({way.partition(":")[0] for way in own} - {*OF_VAES, CHANNELS_LAST})
        wanted = (_named(own, kind) for kind in kinds)
        questions = [[IN_SLICES] if sliced else [], *wanted, _layouts(own, lacking)]
    answers = [[way for way in ways if changes(way)] for ways in questions]
    for chosen in product(*([None, *ways] for ways in answers)):
        ways = tuple(filter(None, chosen))
        if len(ways) > 1:
            changes(*ways)
    return found


def _of_a_vae(module: Any, inputs: Any, lacking: Mapping[str, str], asked: Set[str]) -> Iterator[list[str]]:
    """Ways to encode or decode, of which one each can be chosen."""
    yield [SLICED] if "slicing" not in lacking and _batch(inputs) > 1 else []
    yield _layouts(asked, lacking)
    yield [] if "frames" in lacking else _named(asked, BATCHED)
    yield [] if "tiling" in lacking else list(dict.fromkeys((*_tiles(module), *_named(asked, TILED))))


def _named(asked: Set[str], name: str) -> list[str]:
    return sorted(way for way in asked if way.partition(":")[0] == name)


def _layouts(asked: Set[str], lacking: Mapping[str, str]) -> list[str]:
    return [] if "channels_last" in lacking else _named(asked, CHANNELS_LAST)


def _tiles(module: Any) -> Iterator[str]:
    """Tiles of the library's size, and where they are square also of half of it, if those meet.

    Other sizes take seconds each, of a video: each tile at an edge is another shape to trace, for some frames.
    """
    yield TILED
    size = getattr(module, "tile_sample_min_size", None)
    if isinstance(size, int):
        with suppress(BadInput):
            pieces.tiles(module, size // 2)
            yield f"{TILED}:{size // 2}"


def _batch(inputs: Any) -> int:
    return next((len(leaf) for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor) and leaf.dim()), 0)
