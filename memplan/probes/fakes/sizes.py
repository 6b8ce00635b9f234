"""Sizes as people give them: those of a call, and of pictures for it. It needs no torch."""

import re
from collections.abc import Mapping
from typing import Any

from memplan.errors import BadInput

SIZES = ("height", "width", "num_frames", "num_images_per_prompt", "num_videos_per_prompt", "num_inference_steps")
"""Arguments that decide how much a call holds and how long it takes."""
SIZE = re.compile(r"(\d+)\s*x\s*(\d+)(?:\s*x\s*(\d+))?")
"""Width, height and the number of frames of a made-up picture: 768x512, or 768x512x16."""


def is_size(text: str) -> bool:
    """Whether a picture is given as its size, else it is a path."""
    return SIZE.fullmatch(text.strip()) is not None


def check_sizes(arguments: Mapping[str, Any]) -> None:
    """Raises BadInput for an argument that decides the size of a call and is below one, or no number."""
    for name in SIZES:
        value = arguments.get(name)
        if isinstance(value, str) or (isinstance(value, int) and value < 1):
            raise BadInput(f"{name} is {value}; it must be a whole number of at least 1")
