"""Whether a pipeline encodes its prompt in one place, from words alone."""

import inspect
from collections.abc import Iterator
from typing import Any

from diffusers import ModularPipeline

from memplan.names import ENCODE_PROMPT

NUMBERS = ("num_images_per_prompt",)
"""Arguments with "image" in their names that are no pictures."""


def lacks(pipe: Any) -> Iterator[tuple[str, str]]:
    """("prompt_reuse", sentence) for a pipeline of which no encoded prompt can be kept."""
    encode, kind = getattr(type(pipe), ENCODE_PROMPT, None), type(pipe).__name__
    if not callable(encode) or isinstance(pipe, ModularPipeline):
        yield "prompt_reuse", f"{kind} has no encode_prompt() whose results could be kept"
        return
    names = inspect.signature(encode).parameters
    pictures = [name for name in names if "image" in name and name not in NUMBERS]
    if pictures:
        yield "prompt_reuse", f"encode_prompt() of {kind} takes pictures beside words ({', '.join(pictures)})"
