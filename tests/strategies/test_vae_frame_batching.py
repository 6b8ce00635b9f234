"""What only batches of frames know: which VAEs have them, what they hold, and which numbers do."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from memplan import planner
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

LATENTS = {"ltx": (1, 8, 6, 2, 2), "mochi": (1, 12, 5, 4, 4), "cogvideox": (1, 4, 6, 6, 6)}


def visited(vae: Any, latent: torch.Tensor, *numbers: int) -> Any:
    """The visit of a decode that was tried with so many frames at a time, and what failed."""
    with room(vae, "vae") as inside:
        for frames in numbers:
            inside.doors.switches = {**inside.doors.switches, **VaeFrameBatching.switches({"frames": frames})}
        inside.part.decode(latent, return_dict=False)
    return inside.visits[0], inside.doors.failed


@pytest.mark.parametrize("batches", some(("ltx:0", "mochi:0", "mochi:24", "cogvideox:16"), "ltx:0"))
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
