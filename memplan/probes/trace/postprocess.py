"""Post-processing without the pixels: the device part is traced, the host part gives arrays nobody has touched."""

import copy
import mmap
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from torch import nn

from memplan.probes.trace.doors import Door, Doors
from memplan.probes.trace.ledger import Ledger
from memplan.probes.trace.timeline import OWN_CODE

METHOD = "postprocess_video"
FLOAT = 4
"""Bytes of a channel of a pixel in an array of pictures."""
PASSES = 3
"""Arrays of floats at once where pictures are made: the values, those times 255, and those rounded."""
PIXEL, GREY = 4, 1
"""Bytes of a pixel in Pillow, in colours and in greys (src/libImaging/Storage.c)."""


class HostSide:
    """Enters into the ledger what diffusers' processors hold in host memory (diffusers/image_processor.py)."""

    def __init__(self, ledger: Ledger) -> None:
        """Nothing is held."""
        self.ledger = ledger
        self.floats = self.pictures = self.finished = 0

    def copied(self, images: torch.Tensor) -> None:
        """`images` are copied from the device, then to float32, where they are not in it."""
        channels = images.shape[1]
        self.floats = images.numel() * FLOAT
        self.pictures = images.numel() // channels * (GREY if channels == 1 else PIXEL)
        copied = 0 if images.dtype == torch.float32 else images.numel() * images.element_size()
        self.ledger.hold(self.finished + copied + self.floats)

    def drawn(self) -> None:
        """Pictures are made of what was copied last; those of each video of a batch are kept."""
        self.ledger.hold(self.finished + PASSES * self.floats)
        self.finished += self.pictures

    def stacked(self, video: torch.Tensor) -> None:
        """The arrays of all videos of a batch become one."""
        self.ledger.hold(2 * video.numel() * FLOAT)


@contextmanager
def postprocessing(pipe: Any, doors: Doors) -> Generator[None]:
    """Replace the image and video processors of `pipe` by traced copies for the length of the context."""
    found = {name: value for name, value in vars(pipe).items() if isinstance(value, VaeImageProcessor)}
    try:
        vars(pipe).update({name: _traced(value, doors) for name, value in found.items()})
        yield
    finally:
        vars(pipe).update(found)


def _traced(processor: VaeImageProcessor, doors: Doors) -> VaeImageProcessor:
    twin: Any = copy.copy(processor)
    _tell(twin, doors.ledger, _host_images, processor.numpy_to_pil)
    original = getattr(twin, METHOD, None)
    if original is not None:

        def door(video: torch.Tensor, output_type: str = "np", **kwargs: Any) -> Any:
            host = _tell(twin, doors.ledger, _nothing, lambda images: [])

            def made(video: torch.Tensor, output_type: str) -> Any:
                frames = original(video=video, output_type=output_type)
                if output_type == "np":
                    host.stacked(video)
                return frames

            inner = Door(OWN_CODE, nn.Module(), METHOD, made)
            frames = doors.visit(inner, (), {"video": video, "output_type": output_type})
            return _host_images(video) if output_type == "np" else frames

        setattr(twin, METHOD, door)
    return twin


def _tell(twin: Any, ledger: Ledger, arrays: Callable[[Any], Any], pictures: Callable[[Any], Any]) -> HostSide:
    """`twin` makes these `arrays` and `pictures`, and `ledger` is told what it would really hold."""
    host = HostSide(ledger)

    def pt_to_numpy(images: torch.Tensor) -> Any:
        host.copied(images)
        return arrays(images)

    def numpy_to_pil(images: Any) -> Any:
        host.drawn()
        return pictures(images)

    twin.pt_to_numpy, twin.numpy_to_pil = pt_to_numpy, numpy_to_pil
    return host


def _host_images(images: torch.Tensor) -> np.ndarray[Any, Any]:
    """A (B, …, H, W, C) float32 array of zeros in host memory for (B, C, …, H, W) images or videos on the device."""
    batch, channels, *rest = images.shape
    pages = mmap.mmap(-1, max(1, images.numel() * 4))  # np.zeros writes zeros where malloc reuses what was freed
    return np.ndarray((batch, *rest, channels), np.float32, pages)


def _nothing(images: torch.Tensor) -> np.ndarray[Any, Any]:
    """What stands for frames in host memory while their copies are made."""
    return np.zeros(0, dtype=np.float32)
