"""Other ways to call a component: in tiles, slice by slice, attention in slices, another dtype; alone and combined."""

from collections.abc import Callable, Generator, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from itertools import combinations
from types import MappingProxyType
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from memplan.facts import IN_SLICES, SLICED, TILED
from memplan.probes.trace.ledger import Recording

SCORES = ("aten._softmax", "aten._safe_softmax", "aten.bmm", "aten.baddbmm")
"""Ops of an attention that holds all its scores. Slices of it are smaller; a fused kernel holds none."""
IGNORED = {"AutoencoderKLCosmos": "takes the setting and ignores it"}
"""diffusers classes whose enable_tiling() changes nothing."""
REPLACEABLE = ("AttnProcessor", "AttnProcessor2_0", "AttnAddedKVProcessor", "AttnAddedKVProcessor2_0")
"""The library's own attention, which it puts slices in place of."""
DISPATCHED = "_attention_backend"
"""The attribute by which a processor tells diffusers' dispatcher what to compute its attention with."""
Switches = Mapping[str, Callable[[Any], Callable[[], None]]]
"""Ways that somebody asks for, by name: what switches a module to each, and returns what undoes that."""
NO_SWITCHES: Switches = MappingProxyType({})


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
    unsliced = _unsliced(module)
    if unsliced:
        yield "attention_slicing", unsliced


def _unsliced(module: Any) -> str | None:
    """Why the attention of `module` cannot be sliced."""
    if not hasattr(module, "set_attention_slice"):
        return f"diffusers slices no attention of {type(module).__name__}"
    kinds = [type(part.processor).__name__ for part in _attentions(module)]
    if any(kind.startswith("Sliced") for kind in kinds):
        return "its attention is in slices already"
    own = next((kind for kind in kinds if kind not in REPLACEABLE), None)
    return f"slices would take the place of its {own}" if own else None


def _attentions(module: Any) -> list[Any]:
    return [part for part in module.modules() if hasattr(part, "set_attention_slice") and hasattr(part, "processor")]


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
    """What `trace` records of a call in each way that holds other memory than the `plain` one, and in both of two.

    Slices are tried for several pictures, and slices of attention where the peak is in its scores. Ways that are
    `asked` for are those of denoisers, and recorded whatever they hold.
    """
    found: dict[tuple[str, ...], Recording] = {}
    lacking = dict(lacks(module))

    def changes(*ways: str) -> bool:
        recording = trace(ways)
        if recording is None or (asked.isdisjoint(ways) and recording.segments() == plain.segments()):
            return False
        found[ways] = recording
        return True

    if method in ("decode", "encode"):
        tiles = [] if "tiling" in lacking else [way for way in _tiles(module) if changes(way)]
        if "slicing" not in lacking and _batch(inputs) > 1 and changes(SLICED):
            for way in tiles:
                changes(SLICED, way)
        return found
    sliced = "attention_slicing" not in lacking and plain.peak_op in SCORES and changes(IN_SLICES)
    wanted = () if type(module).__module__.startswith("transformers.") else sorted(asked)
    for way in wanted:
        if changes(way) and sliced:
            changes(IN_SLICES, way)
    for one, other in combinations(wanted, 2):
        if (one,) in found and (other,) in found and _kind(one) != _kind(other):
            changes(one, other)
    return found


def _kind(way: str) -> str:
    return way.partition(":")[0]


def _tiles(module: Any) -> Iterator[str]:
    """Tiles of the library's size, and where they are square also of half of it."""
    yield TILED
    size = getattr(module, "tile_sample_min_size", None)
    if isinstance(size, int):
        yield f"{TILED}:{size // 2}"


def _batch(inputs: Any) -> int:
    return next((len(leaf) for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor) and leaf.dim()), 0)


# ---- switches --------------------------------------------------------------------------------------------------------
@contextmanager
def called(module: Any, ways: tuple[str, ...], switches: Switches = NO_SWITCHES) -> Generator[None]:
    """`module` is called in these ways for the length of the context; then its settings are what they were.

    Where `switches` have a way, they do it, unseen by the dry run: what they cast is no part of the call.
    """
    parts = [module, *_attentions(module)]
    before = [(vars(part), dict(vars(part))) for part in parts]

    def restore() -> None:
        for now, then in before:
            now.clear()
            now.update(then)

    with ExitStack() as undos:
        undos.callback(restore)
        for way in ways:
            if way in switches:
                with _disable_current_modes():
                    undos.callback(_unseen(switches[way](module)))
            else:
                _switch(module, way)
        yield


def _unseen(undo: Callable[[], None]) -> Callable[[], None]:
    def unseen() -> None:
        with _disable_current_modes():
            undo()

    return unseen


def _switch(module: Any, way: str) -> None:
    name, _, size = way.partition(":")
    if name == SLICED:
        module.enable_slicing()
    elif name == IN_SLICES:
        module.set_attention_slice("auto")
    else:
        module.enable_tiling()
    if size:
        module.tile_latent_min_size = module.tile_latent_min_size * int(size) // module.tile_sample_min_size
        module.tile_sample_min_size = int(size)
