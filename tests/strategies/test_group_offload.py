"""What only group offload knows: whom it refuses, and the way back from its hooks in stream mode."""

import contextlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.hooks import group_offloading as library

from memplan.errors import BadInput
from memplan.run import Run
from memplan.strategies import GroupOffload
from tests.measured_facts import facts_of
from tests.pipelines import build
from tests.test_strategy_laws import attributes, picture


@pytest.mark.parametrize(
    ("strategy", "kind", "sentence"),
    [
        (GroupOffload("transformer", stream=True), "mps", "streams need a CUDA, ROCm or XPU device"),
        (GroupOffload("transformer", "block_level"), "cuda", "leaf_level, or block_level with blocks 1, 2"),
        (GroupOffload("transformer", "block_level", 3), "cuda", "does not split that way"),
        (GroupOffload("transformer", "block_level", 2, stream=True), "cuda", "one block at a time, not 2"),
        (GroupOffload("transformer", low_cpu_mem=True), "cuda", "add stream=true"),
        (GroupOffload("text_encoder_2", "block_level", 1), "cuda", "no list of blocks"),
        (GroupOffload("vae", stream=True), "cuda", "never called as forward"),
    ],
)
def test_refuses(strategy: GroupOffload, kind: str, sentence: str) -> None:
    assert sentence in (strategy.refuses(Run(facts_of(build("flux"), kind=kind))) or "")


def test_refuses_a_module_that_breaks_where_it_is_called() -> None:
    facts = facts_of(build("flux"))
    old = facts.model.component("text_encoder")
    new = replace(old, lacks=(("leaf_level:head", "its head reads weights directly"),))
    called = replace(facts.trace.calls[0], component="text_encoder", modules=("", "head"))
    broken = replace(facts, model=replace(facts.model, components=(new,)))
    assert GroupOffload("text_encoder").refuses(Run(broken)) is None
    broken = replace(broken, trace=replace(facts.trace, calls=(called,)))
    assert GroupOffload("text_encoder").refuses(Run(broken)) == "its head reads weights directly"


def test_refuses_where_device_and_host_share_their_memory() -> None:
    facts = facts_of(build("flux"), kind="mps", unified=True)
    assert "the host's own" in (GroupOffload("transformer").refuses(Run(facts)) or "")


def test_variants_stream_where_there_are_streams() -> None:
    with_streams = list(GroupOffload.variants(facts_of(build("flux"))))
    without = list(GroupOffload.variants(facts_of(build("flux"), kind="mps")))
    assert {s for s in with_streams if not s.stream} == set(without)
    assert GroupOffload("transformer", "block_level", 1, True, True) in with_streams
    assert not [s for s in with_streams if s.stream and s.blocks not in (None, 1)]


def test_a_second_time_is_refused_rather_than_ignored() -> None:
    pipe = build("flux")
    undo = GroupOffload("transformer").apply(pipe, "cpu")
    with pytest.raises(BadInput, match="already"):
        GroupOffload("transformer", "block_level", 1).apply(pipe, "cpu")
    undo()


@pytest.mark.parametrize("level", ["leaf_level", "block_level"])
@pytest.mark.parametrize("called", [False, True])
def test_the_way_back_from_streams(monkeypatch: pytest.MonkeyPatch, level: str, called: bool) -> None:
    """On a CPU made to look as if it had streams: before and after the forward in which prefetching is learnt."""
    pipe = build("flux")
    expected, before = picture(pipe, "flux"), attributes(pipe)
    monkeypatch.setattr(library, "TorchDeviceBackend", lambda device=None: CpuWithStreams())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    stream_of(monkeypatch)
    undo = GroupOffload("transformer", level, 1 if level == "block_level" else None, True, True).apply(pipe, "cpu")
    first = next(m for m in pipe.transformer.modules() if getattr(m, "_diffusers_hook", None))
    assert "lazy_prefetch_group_offloading" in first._diffusers_hook.hooks
    if called:
        assert torch.equal(picture(pipe, "flux"), expected)
        assert first._diffusers_hook.get_hook("group_offloading").next_group is not None
    undo()
    assert attributes(pipe) == before
    assert torch.equal(picture(pipe, "flux"), expected)


class CpuWithStreams:
    """torch.cpu with the calls that group offload makes to a backend with streams."""

    Stream = torch.cpu.Stream

    def stream(self, stream: Any) -> Any:
        return contextlib.nullcontext()

    def current_stream(self) -> Any:
        return Synchronous()


class Synchronous:
    """A stream on which all work is done."""

    def synchronize(self) -> None:
        """Nothing to wait for."""


def stream_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library give a stream to a CPU, by skipping its check of the device."""
    apply = library._apply_group_offloading

    def with_stream(module: torch.nn.Module, config: Any) -> None:
        config.stream = Synchronous()
        apply(module, config)

    monkeypatch.setattr(library, "_apply_group_offloading", with_stream)
    entry = library.apply_group_offloading
    monkeypatch.setattr(
        "diffusers.hooks.apply_group_offloading", lambda *a, **k: entry(*a, **{**k, "use_stream": False})
    )
