"""What only the layout of images knows: whom it helps, what it holds, and that the way back finds the strides."""

from typing import Any

import diffusers
import pytest
import torch

from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.probes.trace.variants import lacks
from memplan.registry import switches
from memplan.run import Run
from memplan.strategies import ChannelsLast
from tests.accuracy.measured import peak_of
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.probes.full_size import XL_UNET
from tests.probes.rooms import peak, room
from tests.probes.traced import Traced


def strides(part: Any) -> dict[str, tuple[int, ...]]:
    """Those of every parameter."""
    return {name: weight.stride() for name, weight in part.named_parameters()}


def test_the_peak_is_that_of_a_real_decode() -> None:
    pipe, latent = build("flux", "medium"), torch.zeros(1, 4, 12, 12)
    with room(pipe.vae) as inside:
        inside.doors.switches = ChannelsLast.switches({})
        inside.part.decode(latent)
        after = strides(inside.part)
    assert after == strides(pipe.vae)
    (seen,) = inside.visits
    last = seen.others[("channels last",)]
    ChannelsLast().apply(pipe, "cpu")
    with torch.no_grad():
        _, real = peak_of(lambda: pipe.vae.decode(latent))
    assert peak(last) == pytest.approx(real, abs=64)
    assert peak(last) < 0.9 * peak(seen.recording)


def test_pictures_are_the_same_up_to_rounding_and_the_way_back_finds_the_strides() -> None:
    pipe, latent = build("flux"), torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    before = strides(pipe.vae)
    with torch.no_grad():
        first = pipe.vae.decode(latent).sample
        undo = ChannelsLast().apply(pipe, "cpu")
        last = pipe.vae.decode(latent).sample
    assert strides(pipe.vae) != before
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert float((last - first).abs().max() / first.std()) < 1e-4
    undo()
    assert strides(pipe.vae) == before
    with torch.no_grad():
        assert torch.equal(pipe.vae.decode(latent).sample, first)


def test_results_need_no_copy_in_half_precision_on_a_gpu() -> None:
    """A channels-first convolution copies image and result; with its filters channels-last, at most the image."""
    image, filters = torch.zeros(2, 64, 32, 32, dtype=torch.bfloat16), torch.zeros(64, 64, 3, 3, dtype=torch.bfloat16)
    last = filters.to(memory_format=torch.channels_last)

    def held(*inputs: torch.Tensor) -> int:
        return Traced(lambda i, f: torch.nn.functional.conv2d(i, f, padding=1), *inputs).peak

    assert held(image, filters) == 3 * image.nbytes + filters.nbytes
    assert held(image, last) == 2 * image.nbytes
    assert held(image.to(memory_format=torch.channels_last), last) == image.nbytes


def test_only_what_is_made_of_images_has_a_layout() -> None:
    assert [s.component for s in ChannelsLast.variants(facts_of(build("flux")))] == ["vae"]
    assert {s.component for s in ChannelsLast.variants(facts_of(build("sdxl")))} == {"vae", "unet"}
    refusal = ChannelsLast("vae").refuses(Run(facts_of(build("wan"))))
    assert refusal == "AutoencoderKLWan has 3D convolutions, for which no layout of images does"
    for family in ("flux", "sd3"):  # the second one's cut its picture into patches
        refusal = ChannelsLast("transformer").refuses(Run(facts_of(build(family)))) or ""
        assert refusal.endswith(
            "has no 2D convolutions but such as cut a picture into patches: it is not made of images"
        )


def test_a_unet_of_few_convolutions_is_made_of_images() -> None:
    """Those of SDXL's hold 13% of its weights: its attention holds the rest."""
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**XL_UNET)
    assert "channels_last" not in dict(lacks(unet))


def test_needs_a_plan_that_names_it() -> None:
    refusal = ChannelsLast().refuses(Run(facts_of(build("flux"), ways={})))
    assert refusal == "channels_last needs a dry run of its own: price the plan that names it"


@pytest.mark.slow
def test_a_plan_that_names_it_has_it_dry_run() -> None:
    trace = dry_run(open_pipeline(build("sd15")), inputs("sd15"), switches=switches(["channels_last:unet"]))
    assert "channels last" in trace.ways("unet")
    assert not any(call.recast for call in trace.alternatives)
