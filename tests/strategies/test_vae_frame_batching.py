"""What only batches of frames know: which VAEs have them, what they hold, and which numbers do."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from memplan import pieces, planner
from memplan.errors import BadInput
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.registry import parse_plan, switches
from memplan.run import Run
from memplan.strategies import VaeFrameBatching
from tests.accuracy.measured import peak_of
from tests.measured_facts import facts_of
from tests.pipelines import build
from tests.probes.rooms import flops, peak, room
from tests.some import some

LATENTS = {"ltx": (1, 8, 6, 2, 2), "cogvideox": (1, 4, 6, 6, 6), "hunyuan_video": (1, 4, 9, 4, 4)}


def visited(vae: Any, latent: torch.Tensor, *numbers: int) -> Any:
    """The visit of a decode that was tried with so many frames at a time, and what failed."""
    with room(vae, "vae") as inside:
        for frames in numbers:
            inside.doors.switches = {**inside.doors.switches, **VaeFrameBatching.switches({"frames": frames})}
        inside.part.decode(latent, return_dict=False)
    return inside.visits[0], inside.doors.failed


@pytest.mark.parametrize("batches", some(("ltx:0", "ltx:32", "cogvideox:16"), "ltx:0"))
def test_the_peak_is_that_of_a_real_decode(batches: str) -> None:
    family, _, number = batches.partition(":")
    frames = int(number)
    pipe, latent = build(family), torch.zeros(LATENTS[family])
    seen, _ = visited(pipe.vae, latent, frames)
    batched = seen.others[(VaeFrameBatching(frames=frames).way,)]
    assert peak(batched) != peak(seen.recording)
    undo = VaeFrameBatching(frames=frames).apply(pipe, "cpu")
    with torch.no_grad():
        result, real = peak_of(lambda: pipe.vae.decode(latent, return_dict=False)[0])
    assert peak(batched) == real
    undo()
    with torch.no_grad():
        whole = pipe.vae.decode(latent, return_dict=False)[0]
    assert result.shape == whole.shape


def decoded(vae: Any, latent: torch.Tensor) -> torch.Tensor:
    """The video."""
    with torch.no_grad():
        return vae.decode(latent, return_dict=False)[0]


def random(family: str) -> torch.Tensor:
    """A latent of which each frame is another."""
    return torch.randn(LATENTS[family], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("family", "whole", "overlap"), [("ltx", 48, 8), ("hunyuan_video", 48, 4)])
def test_a_stretch_of_frames_is_what_the_vae_decodes_of_these_alone(family: str, whole: int, overlap: int) -> None:
    """Up to where the next one is blended in; and one as long as the video is the video."""
    pipe, latent = build(family), random(family)
    pipe.vae.use_framewise_decoding = False
    of_all = decoded(pipe.vae, latent)
    first = decoded(pipe.vae, latent[:, :, : 16 // pipe.vae.temporal_compression_ratio + 1])
    VaeFrameBatching(frames=16).apply(pipe, "cpu")
    own = 16 - overlap
    assert torch.equal(decoded(pipe.vae, latent)[:, :, :own], first[:, :, :own])
    VaeFrameBatching(frames=whole).apply(pipe, "cpu")
    assert torch.equal(decoded(pipe.vae, latent), of_all)


def test_batches_carry_over_what_the_next_one_needs() -> None:
    """But for the norms, which see one batch each."""
    pipe, latent = build("cogvideox"), random("cogvideox")
    for part in list(pipe.vae.modules()):
        for name, child in part.named_children():
            if isinstance(child, torch.nn.GroupNorm):
                setattr(part, name, torch.nn.Identity())
    VaeFrameBatching(frames=24).apply(pipe, "cpu")
    whole = decoded(pipe.vae, latent)
    VaeFrameBatching(frames=8).apply(pipe, "cpu")
    assert torch.allclose(decoded(pipe.vae, latent), whole, rtol=1e-4, atol=1e-4 * whole.abs().max().item())


def test_mochi_is_refused_whose_batches_lose_what_carries_over() -> None:
    pipe = build("mochi")
    words = "AutoencoderKLMochi loses what carries over from batch to batch of frames"
    assert words in (VaeFrameBatching().refuses(Run(facts_of(pipe))) or "")
    for frames in (0, 24):
        with pytest.raises(BadInput, match=words):
            VaeFrameBatching(frames=frames).apply(pipe, "cpu")
    assert not pipe.vae.use_framewise_decoding


def test_a_vae_of_neither_kind_is_refused_in_words() -> None:
    class Newer:
        use_framewise_decoding = False

    for frames in (0, 16):
        with pytest.raises(BadInput, match="does not know by which settings Newer decodes some frames"):
            pieces.frames(Newer(), frames)


def test_overlapping_stretches_of_frames_are_work_for_less_memory() -> None:
    seen, failed = visited(build("ltx").vae, torch.zeros(LATENTS["ltx"]), 0)
    batched = seen.others[("frames",)]
    assert peak(batched) < peak(seen.recording) / 2
    assert flops(batched) > flops(seen.recording)
    assert not failed


def test_numbers_that_the_vae_cannot_have_fail_in_words() -> None:
    """A batch of one frame of the latent would never be made longer: the video would be another."""
    seen, failed = visited(build("cogvideox").vae, torch.zeros(1, 4, 4, 2, 2), 6, 4)
    assert failed == {
        ("vae", ("frames:6",)): "AutoencoderKLCogVideoX decodes frames in multiples of 4; 6 is none",
        ("vae", ("frames:4",)): "what comes out would be 1x3x4x16x16, and should be 1x3x16x16x16",
    }
    assert not seen.others


def test_apply_refuses_such_a_number_and_changes_nothing() -> None:
    pipe = build("ltx")
    with pytest.raises(BadInput, match="multiples of 16; 20 is none"):
        VaeFrameBatching(frames=20).apply(pipe, "cpu")
    assert not pipe.vae.use_framewise_decoding


def test_refuses_what_has_no_batches_of_frames() -> None:
    facts = facts_of(build("wan"))
    sentence = "nothing can be set about how many frames AutoencoderKLWan decodes at a time"
    assert VaeFrameBatching().refuses(Run(facts)) == sentence
    assert not list(VaeFrameBatching.variants(facts))


@pytest.mark.wide
def test_a_plan_that_names_it_is_priced_with_tiles_too() -> None:
    """Ways that are chosen together are followed together."""
    pipe, plan = build("ltx"), "vae_tiling + vae_frame_batching"
    pipe.vae.tile_sample_min_width = pipe.vae.tile_sample_min_height = 64
    pipe.vae.tile_sample_stride_width = pipe.vae.tile_sample_stride_height = 32
    call = {"prompt": "a", "height": 96, "width": 64, "num_frames": 25, "num_inference_steps": 1}
    assert VaeFrameBatching().refuses(Run(facts_of(pipe, ways={}))) == (
        "the library's own number of frames at a time change nothing for this video, or need a dry run of their own, "
        "which vae_frame_batching has made where a plan names it"
    )
    trace = dry_run(open_pipeline(pipe), call, switches=switches([plan]))
    facts = replace(facts_of(pipe), trace=trace)
    found = planner.seated(facts, parse_plan(plan, facts))
    decode = next(c for c in trace.calls if c.method == "decode")
    both = trace.alternative(decode, found.run.variant("vae"))
    assert set(both.variant) == {"frames", "tiled"}
    assert both.activations < min(trace.held("vae", "frames"), trace.held("vae", "tiled"))
    assert found.bill.loss.tiles == 1
