"""Post-processing without the pixels: the device part is traced, the host part gives arrays nobody has touched."""

import copy
import mmap
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from torch import nn

from memplan.probes.trace.doors import Door, Doors
from memplan.probes.trace.timeline import OWN_CODE

METHOD = "postprocess_video"


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
    twin.pt_to_numpy = _host_images
    original = getattr(twin, METHOD, None)
    if original is not None:
        inner = Door(OWN_CODE, nn.Module(), METHOD, original)

        def door(video: torch.Tensor, output_type: str = "np", **kwargs: Any) -> Any:
            twin.pt_to_numpy, twin.numpy_to_pil = _nothing, lambda images: []
            frames = doors.visit(inner, (), {"video": video, "output_type": output_type})
            return _host_images(video) if output_type == "np" else frames

        setattr(twin, METHOD, door)
    return twin


def _host_images(images: torch.Tensor) -> np.ndarray[Any, Any]:
    """A (B, …, H, W, C) float32 array of zeros in host memory for (B, C, …, H, W) images or videos on the device."""
    batch, channels, *rest = images.shape
    pages = mmap.mmap(-1, max(1, images.numel() * 4))  # np.zeros writes zeros where malloc reuses what was freed
    return np.ndarray((batch, *rest, channels), np.float32, pages)


def _nothing(images: torch.Tensor) -> np.ndarray[Any, Any]:
    """What stands for frames in host memory while their copies are made."""
    return np.zeros(0, dtype=np.float32)
