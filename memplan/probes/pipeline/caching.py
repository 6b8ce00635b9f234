"""Reads which modules the step caches of the installed diffusers hook, by letting it enable each on a bare copy."""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from memplan.facts import CacheHooks
from memplan.probes.fakes.bare import bare

STEP_CACHE = "step_cache"
"""How facts name all of them."""
FLUX = "FluxTransformer2DModel"
"""The class for which diffusers ships magnitude ratios."""
SPATIAL, TEMPORAL, CROSS = 2, 3, 4
KINDS = {SPATIAL: "spatial", TEMPORAL: "temporal", CROSS: "cross"}
"""Skip ranges that are given only to tell from the hooks which attention each of them is for."""


def caches(module: torch.nn.Module) -> tuple[tuple[CacheHooks, ...], dict[str, str]]:
    """Where each step cache hooks `module`, and (technique: sentence) for each that the library does not enable.

    So for one whose hooks have other attributes than memplan reads. One that hooks nothing is in neither.
    """
    if getattr(module, "_cache_config", None) is not None:
        return (), {STEP_CACHE: "one is on already, and diffusers takes one at a time: call disable_cache() first"}
    found, lacks = [], {}
    for technique, config in _configs() if hasattr(type(module), "enable_cache") else ():
        copy: Any = bare(module)
        try:
            with _quiet():
                copy.enable_cache(config())
        except Exception as error:  # whatever it is, the library's words are the answer
            words = str(error).partition("\n")[0]
            lacks[technique] = f"diffusers does not enable it for {type(module).__name__}: {words}"
            continue
        hooks = tuple(_hooks(copy))
        try:
            found += [_read(technique, hooks, type(module).__name__)] if hooks else []
        except (AttributeError, ImportError) as error:
            lacks[technique] = f"memplan does not know the hooks of this diffusers: {error}"
    return tuple(found), lacks


def _configs() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each technique by memplan's name, and what makes a config of it."""
    from diffusers import hooks

    def never() -> int:
        return 0

    yield "first_block_cache", hooks.FirstBlockCacheConfig
    yield "magcache", lambda: hooks.MagCacheConfig(mag_ratios=[1.0], num_inference_steps=1)
    yield "taylorseer", hooks.TaylorSeerCacheConfig
    yield "taylorseer lite", lambda: hooks.TaylorSeerCacheConfig(use_lite_mode=True)
    yield (
        "pyramid_attention_broadcast",
        lambda: hooks.PyramidAttentionBroadcastConfig(SPATIAL, TEMPORAL, CROSS, current_timestep_callback=never),
    )
    yield "faster_cache", lambda: hooks.FasterCacheConfig(SPATIAL, TEMPORAL, current_timestep_callback=never)


def _hooks(copy: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """The hooks of the modules inside, by path."""
    for path, part in copy.named_modules():
        registry = vars(part).get("_diffusers_hook")
        if path and registry is not None:
            yield from ((path, hook) for hook in registry.hooks.values())


def _read(technique: str, found: tuple[tuple[str, Any], ...], kind: str) -> CacheHooks:
    from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

    first = getattr(found[0][1], "_metadata", None)
    hidden = (getattr(first, "return_hidden_states_index", None) or 0) if first else 0
    ratios = tuple(FLUX_MAG_RATIOS.tolist()) if technique == "magcache" and kind == FLUX else ()
    return CacheHooks(technique, tuple(path for path, _ in found), tuple(_kind(h) for _, h in found), hidden, ratios)


def _kind(hook: Any) -> str:
    manager = getattr(hook, "state_manager", None)
    if manager is not None:
        inactive = manager._init_kwargs.get("is_inactive")
        return "" if inactive is None else "zeros" if inactive else "factors"
    return KINDS.get(getattr(hook, "block_skip_range", 0), "")


@contextmanager
def _quiet() -> Generator[None]:
    """The library says of each cache that is enabled that it is experimental, which nobody is told about a copy."""
    logger = logging.getLogger("diffusers.hooks")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
