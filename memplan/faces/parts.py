"""What is loaded with what, and in which dtypes: the same whether memplan loads a pipeline or writes the script.

A pipeline's from_single_file() knows one dtype, and finds text encoders only as it loads the whole; components of
diffusers can be loaded from a checkpoint by themselves.
"""

from collections import Counter
from collections.abc import Iterable

from memplan.facts import Component

GGUF = ".gguf"
DEFAULT = "default"
"""What diffusers calls the dtype of components that a table of dtypes does not name."""
WIDEST = "float32"
"""The dtype that loses nothing of the others."""


def encoders(components: Iterable[Component]) -> list[Component]:
    """The text encoders in a checkpoint of one file, which come with the whole pipeline only."""
    return [part for part in components if part.file and part.library == "transformers"]


def together(parts: Iterable[Component]) -> str:
    """The dtype in which components are loaded at once: theirs, or where they differ the widest, to be cast later."""
    dtypes = {part.dtype for part in parts}
    return dtypes.pop() if len(dtypes) == 1 else WIDEST


def dtypes(parts: Iterable[Component]) -> dict[str, str]:
    """What from_pretrained() is told: the dtype of most bytes by default, last, and before it what differs."""
    sizes, every = Counter[str](), list(parts)
    for part in every:
        sizes[part.dtype] += part.size
    usual = max(sizes, key=lambda dtype: sizes[dtype])
    return {**{part.name: part.dtype for part in every if part.dtype != usual}, DEFAULT: usual}
