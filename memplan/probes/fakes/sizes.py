"""Sizes of made-up pictures, as people write them: 768x512, or 768x512x16 with frames. It needs no torch."""

import re

SIZE = re.compile(r"(\d+)\s*x\s*(\d+)(?:\s*x\s*(\d+))?")
"""Width, height and the number of frames."""


def is_size(text: str) -> bool:
    """Whether a picture is given as its size, else it is a path."""
    return SIZE.fullmatch(text.strip()) is not None
