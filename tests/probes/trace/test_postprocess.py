"""Post-processing costs the device what it does, and this machine nothing."""

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
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

ROOT = Path(__file__).parents[3]
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


# ---- host memory ----------------------------------------------------------------------------------------------------
KINDS = [("pil", torch.bfloat16), ("pil", torch.float32), ("np", torch.bfloat16)]
"""On the CPU the part of the device is in the process's memory too; of float32 to arrays it is the higher one."""


SHAPES = [(1, 3, 12, 480, 832), (2, 3, 6, 480, 832), (3, 3, 1024, 1536), (2, 1, 1024, 1536)]


def method_of(shape: tuple[int, ...]) -> str:
    """The processor's method for a video, or for pictures."""
    return METHOD if len(shape) == len(VIDEO) else "postprocess"


@pytest.fixture(scope="module")
def rises() -> dict[tuple[str, str, tuple[int, ...]], int]:
    """Measured in a process of its own: what other tests have freed would be taken again in this one."""
    cases = [(kind, str(dtype).removeprefix("torch."), shape) for kind, dtype in KINDS for shape in SHAPES]
    asked = json.dumps([(method_of(shape), kind, dtype, shape) for kind, dtype, shape in cases])
    command = [sys.executable, "-m", "tests.probes.trace.host_memory"]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, cwd=ROOT, check=True)
    return dict(zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has a high-water mark that can be set back")
@pytest.mark.parametrize(("kind", "dtype"), KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_host_memory_of_pictures_is_what_it_really_is(
    kind: str, dtype: torch.dtype, shape: tuple[int, ...], rises: dict[tuple[str, str, tuple[int, ...]], int]
) -> None:
    with processed() as (pipe, inside):
        getattr(pipe.video_processor, method_of(shape))(torch.rand(shape).to(dtype), output_type=kind)
    recordings = [inside.ledger.recording, *(visit.recording for visit in inside.visits)]
    real = rises[kind, str(dtype).removeprefix("torch."), shape]
    assert max(recording.host for recording in recordings) == pytest.approx(real, rel=0.03)


def test_tensors_stay_on_the_device() -> None:
    with processed() as (pipe, inside):
        pipe.video_processor.postprocess_video(torch.empty(VIDEO), output_type="pt")
    assert inside.visits[0].recording.host == 0
