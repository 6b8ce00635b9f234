"""Step caches against the library's hooks on small real pipelines: what is skipped, what is kept, and the way back."""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache as cached
from typing import Any

import pytest
import torch
from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS, nearest_interp

from memplan.errors import BadInput
from memplan.facts import Facts
from memplan.planner import recommend
from memplan.planner.seating import seated
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.run import InGroups, OnCall, OnHost, Partly, Placement, Run
from memplan.simulator import simulate
from memplan.simulator.forwards import kept
from memplan.strategies import (
    Compile,
    FasterCache,
    FirstBlockCache,
    GroupOffload,
    MagCache,
    OnGpu,
    PyramidAttentionBroadcast,
    TaylorSeer,
)
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs

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
PLAIN = [name for name in NAMES if name.startswith("flux-") or name == "cogvideox-13-faster_cache"]


# ---- what is compared -----------------------------------------------------------------------------------------------
def called(family: str) -> dict[str, Any]:
    """The arguments of a call of several steps."""
    return {**inputs(family), "num_inference_steps": STEPS}


@cached
def followed(family: str) -> Facts:
    """The facts of a pipeline with its own call followed as on this CPU."""
    pipe = build(family)
    return replace(facts_of(pipe, kind="cpu"), trace=dry_run(open_pipeline(pipe), called(family), "cpu"))


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


def differs(one: Any, other: Any) -> bool:
    return not torch.equal(one, other)


# ---- against the library --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("family", "cache"), [
    pytest.param(*case, id=name, marks=() if name in PLAIN else pytest.mark.wide)
    for case, name in zip(CASES, NAMES, strict=True)
])  # fmt: skip
def test_what_is_kept_and_skipped_is_what_the_hooks_keep_and_skip(family: str, cache: Any) -> None:
    pipe, run = build(family), Run(followed(family))
    assert cache.refuses(run) is None
    run = (replace(cache, share=1 - 1 / STEPS) if cache is FBC else cache).redraw(run)
    totals, skipped = expected(run)
    if (family, cache) == ("cogvideox", MAG):  # the hidden states are a view of the text's and the picture's together
        call = next(call for call in run.facts.trace.calls if call.component == "transformer")
        text = call.returned("transformer_blocks.0")[1]
        totals = [total + text.storage for total in totals]
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


@pytest.mark.parametrize("cache", [FBC, MAG, TAYLOR, LITE, PAB], ids=lambda cache: str(cache).partition(":")[0])
def test_it_changes_the_picture_and_its_undoing_brings_that_back_bit_by_bit(cache: Any) -> None:
    pipe = build("flux")
    before = pipe(**called("flux"))[0]
    undo = cache.apply(pipe, "cpu")
    with pytest.raises(BadInput, match="has a step cache already"):
        cache.apply(pipe, "cpu")
    changed = pipe(**called("flux"))[0]
    undo()
    assert differs(changed, before)
    assert not differs(pipe(**called("flux"))[0], before)
    assert not any(map(hooks, pipe.transformer.modules()))


def test_undoing_leaves_a_cache_that_somebody_enabled_in_its_place() -> None:
    pipe = build("flux")
    undo = PAB.apply(pipe, "cpu")
    pipe.transformer.disable_cache()
    other = TAYLOR.made(pipe)
    pipe.transformer.enable_cache(other)
    there = [hook for module in pipe.transformer.modules() for hook in hooks(module)]
    undo()
    assert pipe.transformer._cache_config is other
    assert [hook for module in pipe.transformer.modules() for hook in hooks(module)] == there != []


def test_undoing_takes_nothing_off_that_is_off_already() -> None:
    pipe = build("flux")
    undo = PAB.apply(pipe, "cpu")
    pipe.transformer.disable_cache()
    undo()
    assert not pipe.transformer.is_cache_enabled
    assert not any("_diffusers_hook" in vars(module) for module in pipe.transformer.modules())


@pytest.mark.parametrize("level", ["block_level", "leaf_level"])
@pytest.mark.parametrize("cache", [FBC, TAYLOR], ids=["first_block_cache", "taylorseer"])
def test_groups_without_a_stream_come_and_go_under_it(cache: Any, level: str) -> None:
    pictures = []
    for offload in (None, GroupOffload("transformer", level, 1 if level == "block_level" else None)):
        pipe = build("flux")
        undos = [strategy.apply(pipe, "cpu") for strategy in (offload, cache) if strategy is not None]
        pictures.append(pipe(**called("flux"))[0])
        for undo in reversed(undos):
            undo()
    assert not differs(*pictures)


def test_a_longer_call_than_the_table_of_ratios_takes_the_nearest_as_the_library_does() -> None:
    spread = vars(sys.modules[MagCache.__module__])["_spread"]
    for steps in (1, 2, 7, 20, 28, 50, 99):
        own = spread(tuple(FLUX_MAG_RATIOS.tolist()), steps)
        assert own == tuple(nearest_interp(FLUX_MAG_RATIOS, steps).tolist())


# ---- what is refused ------------------------------------------------------------------------------------------------
REFUSED = [
    ("flux", FASTER, "not guided by two halves of a batch: set distilled=true"),
    ("ltx", FASTER, "returns 3 dimensions"),
    ("cogvideox", replace(FASTER, format="BCHW"), "returns 5 dimensions, and BCHW has 4"),
    ("flux", replace(FASTER, distilled=True, spatial_window=ALWAYS), "the first step is within a window"),
    ("flux", replace(MAG, steps=8), "this call has 7 steps: set steps=7"),
    ("flux", replace(TAYLOR, warmup=0), "interval and warmup are 1 or more"),
    ("flux", replace(TAYLOR, dtype="int8"), "dtype is bfloat16, float16 or float32"),
    ("flux", replace(FBC, share=1.0), "share is the part"),
    ("flux", replace(PAB, spatial=None), "one of spatial, temporal and cross"),
    ("flux", replace(PAB, spatial=None, temporal=2), "no such attention; it has spatial"),
    ("flux", replace(PAB, spatial_window=(1,)), "a window is two timesteps, as in spatial_window=100/800"),
    ("flux", replace(PAB, cross_window=(1, 2, 3)), "a window is two timesteps, as in cross_window=100/800"),
    ("flux", replace(FASTER, temporal_window=()), "a window is two timesteps, as in temporal_window=-1/681"),
    ("flux", replace(FASTER, unguided_window=(1,)), "a window is two timesteps, as in unguided_window=-1/641"),
    ("flux", replace(FBC, component="vae"), "hooks nothing in AutoencoderKL"),
    ("wan", PAB, "several forwards a step"),
    ("wan", FASTER, "several forwards a step"),
    ("wan", TAYLOR, "hooks nothing in WanTransformer3DModel"),
    ("wan", replace(MAG, ratios=()), r"give ratios=1.0/…, which one call with .*calibrate=True"),
    ("flux2", FBC, "cannot subtract"),
    ("flux2", TAYLOR, "names no context"),
    ("flux2_klein", FBC, "cannot subtract"),
    ("chroma", FBC, "does not enable it for ChromaTransformer2DModel"),
    ("chroma", TAYLOR, "names no context"),
]


@pytest.mark.parametrize(
    ("family", "cache", "sentence"),
    [pytest.param(*row, marks=() if row[0] == "flux" else pytest.mark.wide) for row in REFUSED],
)
def test_what_fails_is_refused(family: str, cache: Any, sentence: str) -> None:
    refusal = cache.refuses(Run(followed(family)))
    assert refusal is not None
    assert re.search(sentence, refusal)


def test_placements_that_copy_ahead_or_hook_the_component_are_refused() -> None:
    run = Run(followed("flux"))
    moved: dict[Placement, str] = {
        InGroups("leaf_level", stream=True): "copied ahead",
        InGroups("block_level", 2): "would stay on the device",
        Partly("block_level", 2): "copied ahead",
        OnHost(): "does nothing on the device",
    }
    for placement, words in moved.items():
        assert words in (FBC.refuses(run.place("transformer", placement)) or "")
    for placement in (InGroups("leaf_level"), InGroups("block_level", 1), OnCall()):
        assert FBC.refuses(run.place("transformer", placement)) is None
    assert "offload hooks on anew" in (FASTER.refuses(run.place("transformer", OnCall())) or "")


def test_it_excludes_compile() -> None:
    run = Run(followed("flux"))
    for cache in (FBC, MAG, TAYLOR, PAB):
        assert cache.redraw(run).lack("transformer", Compile.name) == cache.uncompiled
    assert run.lack("transformer", Compile.name) is None


def test_a_cache_that_is_on_already_is_seen() -> None:
    pipe = build("flux")
    TAYLOR.apply(pipe, "cpu")
    assert "one is on already" in (FBC.refuses(Run(facts_of(pipe))) or "")


# ---- the price ------------------------------------------------------------------------------------------------------
def test_it_is_priced() -> None:
    run = Run(followed("flux"))
    plain, cached = simulate(run), simulate(TAYLOR.redraw(run))
    totals, _ = expected(TAYLOR.redraw(run))
    before = {peak.component: peak for peak in plain.peaks if peak.component}
    for peak in (peak for peak in cached.peaks if peak.component):
        held = 0 if peak.phase == "text encoding" else max(totals)  # it is freed after the decode
        assert peak.activations - before[peak.component].activations == held
        assert (peak.seconds < before[peak.component].seconds) == (peak.component == "transformer")
    assert (cached.loss.error, cached.loss.word, plain.loss.word) == (0.0, "not predicted", "exact")


def test_first_block_cache_saves_what_the_user_expects_and_nothing_by_itself() -> None:
    run = Run(followed("flux"))
    plain, unknown, half = (simulate(r).seconds for r in (run, FBC.redraw(run), replace(FBC, share=0.5).redraw(run)))
    assert half < unknown == plain


def test_where_nothing_is_skipped_that_is_said() -> None:
    facts = followed("flux")
    said = {cache: seated(facts, [cache]).assumptions for cache in (FBC, replace(FBC, share=0.5), TAYLOR)}
    (unknown,) = [text for text in said[FBC] if "share=0.4" in text]
    assert unknown.startswith("transformer: which steps first_block_cache skips depends on the picture")
    assert not any("share=" in text for text in said[replace(FBC, share=0.5)])
    assert not any("skips nothing" in text for text in said[TAYLOR])
    never = seated(facts, [replace(TAYLOR, warmup=100)]).assumptions
    assert "transformer: taylorseer skips nothing in this call, with these settings" in never


def test_it_is_never_searched_and_says_so() -> None:
    facts = followed("flux")
    found = recommend(facts, [*map(type, (FBC, MAG, TAYLOR, PAB, FASTER)), OnGpu])
    assert not any(plan.run.caches for plan in found.front)
    dropped = {drop.what.partition(":")[0]: drop.reason for drop in found.dropped}
    assert "changes the picture" in dropped["first_block_cache"]
    assert "share=0.4" in dropped["first_block_cache"]
    assert any("changes the output; loss not predicted" in text for text in seated(facts, [TAYLOR]).assumptions)
