"""What only group offload knows: whom it refuses, and the way back from its hooks in stream mode."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.hooks import group_offloading as library

from memplan.errors import BadInput
from memplan.facts import CHANNELS_LAST
from memplan.run import Run
from memplan.simulator import simulate
from memplan.strategies import ChannelsLast, GroupOffload
from tests.measured_facts import NOTHING, facts_of
from tests.pipelines import build
from tests.test_strategy_laws import attributes, picture

ROUNDING = 1e-5
"""The CPU's kernels add up in another order where weights are mapped from a file, at addresses that are not aligned."""


@pytest.mark.parametrize(
    ("strategy", "kind", "sentence"),
    [
        (GroupOffload("transformer", stream=True), "mps", "streams need a CUDA, ROCm or XPU device"),
        (GroupOffload("transformer", "block_level"), "cuda", "leaf_level, or block_level with blocks 1, 2"),
        (GroupOffload("transformer", "block_level", 3), "cuda", "does not split that way"),
        (GroupOffload("transformer", "block_level", 2, stream=True), "cuda", "one block at a time, not 2"),
        (GroupOffload("transformer", low_cpu_mem=True), "cuda", "add stream=true"),
        (GroupOffload("transformer", record_stream=True), "cuda", "add stream=true"),
        (GroupOffload("transformer", stream=True, disk="here"), "cuda", "leave out stream"),
        (GroupOffload("text_encoder_2", disk="here"), "cuda", "shared.weight of text_encoder_2 is in two groups"),
        (GroupOffload("text_encoder_2", "block_level", 1, modules="nothing"), "cuda", "blocks 1 and modules encoder"),
        (GroupOffload("text_encoder_2", "block_level", 1, True, modules="encoder"), "cuda", "leave out stream"),
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


@pytest.mark.parametrize("call", [("", "encoder.final_layer_norm"), ("", "encoder", "head")])
def test_refuses_modules_whose_weights_would_be_away_when_they_are_called(call: tuple[str, ...]) -> None:
    """Before the group of `encoder` has come, and after it took the tied embedding away."""
    facts = facts_of(build("flux"))
    named = GroupOffload("text_encoder_2", "block_level", 1, modules="encoder")
    assert named.refuses(Run(facts)) is None
    first = replace(NOTHING, enters=(0, 1), leaves=(1,))
    last = replace(NOTHING, enters=tuple(range(2, len(call))), leaves=())
    called = replace(facts.trace.calls[0], component="text_encoder_2", modules=call, segments=(first, last))
    broken = replace(facts, trace=replace(facts.trace, calls=(called,)))
    assert f"calls {call[-1]} while" in (named.refuses(Run(broken)) or "")


def test_files_are_refused_where_the_filters_are_channels_last(tmp_path: Path) -> None:
    """The library's writer of files takes none that are not contiguous."""
    pipe = build("sd15")
    facts, disk = facts_of(pipe), GroupOffload("unet", disk=str(tmp_path))
    assert disk.refuses(Run(facts)) is None
    assert "leave out disk" in (disk.refuses(Run(facts).vary("unet", CHANNELS_LAST)) or "")
    assert GroupOffload("unet").refuses(Run(facts).vary("unet", CHANNELS_LAST)) is None
    ChannelsLast("unet").apply(pipe, "cpu")
    with pytest.raises(ValueError, match="non contiguous"):
        disk.apply(pipe, "cpu")


def test_what_is_named_is_not_searched() -> None:
    found = list(GroupOffload.variants(facts_of(build("flux"))))
    assert not [s for s in found if s.record_stream or s.modules or s.disk]


def test_disk_is_priced_without_host_memory_and_without_a_way_to_the_host() -> None:
    run = Run(facts_of(build("flux")))
    kept, read = (simulate(GroupOffload("transformer", disk=disk).redraw(run)) for disk in ("", "here"))
    assert (read.host, read.traffic.to_host) == (simulate(run).host, 0)
    assert kept.host.peak - read.host.peak == run.facts.model.component("transformer").size
    assert read.traffic.to_device == kept.traffic.to_device
    assert read.peak.memory == kept.peak.memory


def test_two_components_of_one_class_keep_their_own_weights_on_disk(tmp_path: Path) -> None:
    """The library names the files of both alike."""
    pipe = build("wan22")
    parts = {name: getattr(pipe, name) for name in ("transformer", "transformer_2")}
    before = {name: {k: v.clone() for k, v in part.state_dict().items()} for name, part in parts.items()}
    expected, known = picture(pipe, "wan22"), attributes(pipe)
    undos = [GroupOffload(name, "block_level", 1, disk=str(tmp_path)).apply(pipe, "cpu") for name in parts]
    first, second = (sorted(path.name for path in folder.iterdir()) for folder in tmp_path.iterdir())
    assert first == second != []
    assert torch.allclose(picture(pipe, "wan22"), expected, atol=ROUNDING)
    for undo in undos:
        undo()
    assert attributes(pipe) == known
    assert all(torch.equal(v, before[n][k]) for n, part in parts.items() for k, v in part.state_dict().items())
    assert not list(tmp_path.iterdir())


def test_the_code_for_files_names_a_fresh_folder(tmp_path: Path) -> None:
    pipe, expected = build("flux"), picture(build("flux"), "flux")
    exec("\n".join(GroupOffload("transformer", disk=str(tmp_path)).code("cpu")), {"pipe": pipe})
    assert [folder.name.partition("-")[0] for folder in tmp_path.iterdir()] == ["transformer"]
    assert torch.allclose(picture(pipe, "flux"), expected, atol=ROUNDING)
    with pytest.warns(ResourceWarning):
        del pipe.transformer.offload_folder  # as the component does when it goes
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no folder"):
        GroupOffload("transformer", disk=str(tmp_path / "absent")).apply(build("flux"), "cpu")


def test_a_disk_that_fills_up_leaves_the_pipeline_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pipe = build("flux")
    expected, before, written = picture(pipe, "flux"), attributes(pipe), []

    def save_file(tensors: Any, path: str) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError("no space left on device")
        save(tensors, path)

    save = library.safetensors.torch.save_file
    monkeypatch.setattr(library.safetensors.torch, "save_file", save_file)
    with pytest.raises(OSError, match="no space"):
        GroupOffload("transformer", disk=str(tmp_path)).apply(pipe, "cpu")
    assert attributes(pipe) == before
    assert not list(tmp_path.iterdir())
    assert torch.equal(picture(pipe, "flux"), expected)


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
