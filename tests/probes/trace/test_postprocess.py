"""Post-processing costs the device what it does, and this machine nothing."""

from collections.abc import Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.video_processor import VideoProcessor
from PIL import Image
from torch import nn

from memplan.facts import MIB
from memplan.probes.trace.postprocess import METHOD, postprocessing
from tests.probes.rooms import Room, peak, room

VIDEO = (1, 3, 81, 480, 832)
PIXELS = 3 * 81 * 480 * 832


@contextmanager
def processed() -> Generator[tuple[Any, Room]]:
    """A pipeline of two processors during a dry run."""
    pipe = SimpleNamespace(video_processor=VideoProcessor(), image_processor=VaeImageProcessor(), other=1)
    with room(nn.Identity()) as inside, postprocessing(pipe, inside.doors):
        yield pipe, inside


def memory() -> int:
    """Real memory of this process."""
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("kind", ["np", "pil", "pt"])
def test_a_video_touches_no_memory_here(kind: str) -> None:
    with processed() as (pipe, inside):
        video = torch.empty(VIDEO, dtype=torch.bfloat16)
        before = memory()
        frames = pipe.video_processor.postprocess_video(video, output_type=kind)
        grown = memory() - before
    assert grown < 32 * MIB < video.nbytes
    (only,) = inside.visits
    assert (only.component, only.method) == ("", METHOD)
    assert frames is not None


@pytest.mark.parametrize("kind", ["np", "pt"])
def test_a_videos_peak_is_that_of_the_device(kind: str) -> None:
    small = torch.zeros(2, 3, 5, 16, 24)
    with processed() as (pipe, inside):
        frames = pipe.video_processor.postprocess_video(small, output_type=kind)
    shape = (2, 5, 3, 16, 24) if kind == "pt" else (2, 5, 16, 24, 3)
    assert tuple(frames.shape) == shape
    assert peak(inside.visits[0].recording) >= small.nbytes


def test_denormalising_a_long_video_is_counted() -> None:
    with processed() as (pipe, inside):
        pipe.video_processor.postprocess_video(torch.empty(VIDEO, dtype=torch.float32), output_type="np")
    held = peak(inside.visits[0].recording)
    assert PIXELS * 4 <= held < 3 * PIXELS * 4


def test_images_come_out_of_an_image_processor() -> None:
    with processed() as (pipe, inside):
        pictures = pipe.image_processor.postprocess(torch.zeros(2, 3, 16, 24), output_type="pil")
        arrays = pipe.image_processor.postprocess(torch.zeros(2, 3, 16, 24), output_type="np")
        tensors = pipe.image_processor.postprocess(torch.zeros(2, 3, 16, 24), output_type="pt")
        assert inside.ledger.live == tensors.nbytes
    assert [type(picture) for picture in pictures] == [Image.Image] * 2
    assert pictures[0].size == (24, 16)
    assert isinstance(arrays, np.ndarray)
    assert arrays.shape == (2, 16, 24, 3)
    assert tensors.shape == (2, 3, 16, 24)


def test_the_processors_are_put_back() -> None:
    pipe = SimpleNamespace(video_processor=VideoProcessor(), image_processor=VaeImageProcessor(), other=1)
    before = dict(vars(pipe))
    with room(nn.Identity()) as inside:
        with pytest.raises(ValueError, match="does not exist"), postprocessing(pipe, inside.doors):
            pipe.video_processor.postprocess_video(torch.zeros(1, 3, 1, 8, 8), output_type="gif")
        assert vars(pipe) == before
    assert METHOD not in vars(pipe.video_processor)
    assert "numpy_to_pil" not in vars(pipe.video_processor)
