"""Step caches against the library's hooks on small real pipelines: what is skipped, what is kept, and the way back."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from memplan.errors import BadInput
from memplan.facts import Facts
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.run import Cached, InGroups, OnCall, OnHost, Partly, Run
from memplan.simulator import simulate
from memplan.simulator.forwards import kept
from memplan.strategies import (
    Compile,
    FasterCache,
    FirstBlockCache,
    MagCache,
    PyramidAttentionBroadcast,
    TaylorSeer,
)
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.some import some

STEPS = 7
ALWAYS = (-1, 1001)
"""A window that all timesteps are in."""
FBC = FirstBlockCache("transformer", threshold=1e9)
"""Every step but the first is skipped."""
MAG = MagCache("transformer", STEPS, ratios=(1.0, 1.1, 0.97, 1.01, 0.99, 1.02, 1.0))
TAYLOR = TaylorSeer("transformer", interval=3, warmup=1, order=2)
LITE = TaylorSeer("transformer", interval=2, warmup=2, lite=True, dtype="float32")
PAB = PyramidAttentionBroadcast("transformer", spatial=3, spatial_window=ALWAYS)
FASTER = FasterCache("transformer", spatial_window=(-1, 950), unguided=3, unguided_window=ALWAYS)
TOGETHER = {
    "flux": (FBC, MAG, TAYLOR, LITE, PAB, replace(FASTER, distilled=True)),
    "wan": (FBC, MAG, LITE),
    "cogvideox": (FBC, MAG, LITE, PAB, replace(FASTER, format="BFCHW")),
    "qwenimage": (FBC, MAG, TAYLOR),
    "hunyuan_video": (FBC, MAG, TAYLOR, PAB, replace(FASTER, distilled=True)),
    "mochi": (FBC, MAG, PAB, FASTER),
    "flux2": (MAG, PAB),
    "flux2_klein": (MAG, TAYLOR),
    "ltx": (FBC, MAG, PAB),
}
CASES = [(family, cache) for family, caches in TOGETHER.items() for cache in caches]
NAMES = [f"{family}-{number}-{cache.name}" for number, (family, cache) in enumerate(CASES)]
PLAIN = [name for name in NAMES if name.startswith(("flux-", "wan-", "cogvideox-4"))]


# ---- what is compared -----------------------------------------------------------------------------------------------
def called(family: str, steps: int = STEPS) -> dict[str, Any]:
    """The arguments of a call of several steps."""
    return {**inputs(family), "num_inference_steps": steps}


def followed(pipe: Any, family: str, steps: int = STEPS) -> Facts:
    """The facts of `pipe` with its own call followed as on this CPU."""
    trace = dry_run(open_pipeline(pipe), called(family, steps), "cpu")
    return replace(facts_of(pipe, kind="cpu"), model=measure(pipe), trace=trace)


def held(part: torch.nn.Module) -> int:
    """Bytes of the storages that the hooks' states hold, but for MagCache's two counters, which are in host memory."""
    states = [state for module in part.modules() for hook in hooks(module) for state in states_of(hook)]
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors(states) if t.dim()}.values())


def hooks(module: torch.nn.Module) -> list[Any]:
    registry = vars(module).get("_diffusers_hook")
    return list(registry.hooks.values()) if registry else []


def states_of(hook: Any) -> list[Any]:
    manager = getattr(hook, "state_manager", None)
    return list(manager._state_cache.values()) if manager else [hook.state] if hasattr(hook, "state") else []


def tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from tensors(inner)
    elif hasattr(value, "__dict__"):
        yield from tensors(vars(value))


class Watch:
    """What each forward of `part` held in the end, and which of the modules `paths` it ran."""

    def __init__(self, part: torch.nn.Module, paths: tuple[str, ...]) -> None:
        self.held: list[int] = []
        self.ran: list[set[str]] = [set()]
        for path in paths:
            leaf = next((m for m in part.get_submodule(path).modules() if isinstance(m, torch.nn.Linear)), None)
            if leaf is not None and leaf is not part.get_submodule(path):
                leaf.register_forward_pre_hook(lambda *_, path=path: self.ran[-1].add(path))
        part.register_forward_hook(self.end)
        self.part = part

    def end(self, *_: Any) -> None:
        self.held.append(held(self.part))
        self.ran.append(set())


def expected(run: Run, component: str = "transformer") -> tuple[list[int], list[tuple[str, ...]]]:
    """Bytes kept after each forward, and what it skips, as priced."""
    call = next(c for c in run.facts.trace.calls if c.component == component)
    by_context: dict[str, int] = {}
    totals = []
    for forward in run.caches[component].forwards:
        by_context[forward.context] = kept(call, forward.kept)
        totals.append(sum(by_context.values()))
    return totals, [forward.skipped for forward in run.caches[component].forwards]


# ---- against the library --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("family", "cache"), [
    pytest.param(*case, id=name, marks=() if name in PLAIN else pytest.mark.wide)
    for case, name in zip(CASES, NAMES, strict=True)
])  # fmt: skip
def test_what_is_kept_and_skipped_is_what_the_hooks_keep_and_skip(family: str, cache: Any) -> None:
    pipe = build(family)
    run = Run(followed(pipe, family))
    assert cache.refuses(run) is None
    run = (replace(cache, share=1 - 1 / STEPS) if cache is FBC else cache).redraw(run)
    totals, skipped = expected(run)
    paths = run.facts.model.component("transformer").cache(cache.technique).modules  # type: ignore[union-attr]
    cache.apply(pipe, "cpu")
    watch = Watch(pipe.transformer, paths)
    pipe(**called(family))
    known = set().union(*watch.ran)
    assert watch.held == totals
    assert watch.ran[:-1] == [known - set(these) for these in skipped]
    assert held(pipe.transformer) == 0  # the pipeline frees it
    assert any(skipped)
    assert all(totals)
