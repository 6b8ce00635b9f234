"""Which calls a pipeline makes to encode its prompt, and how much it gets for them."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from memplan.names import ENCODE_PROMPT


@dataclass
class Prompting:
    """Whether `encode_prompt` is running now, and the most bytes that it has returned at once."""

    running: bool = False
    encoded: int = 0


@contextmanager
def prompting(pipe: Any, state: Prompting) -> Generator[None]:
    """Keep `state` up to date for the length of the context; pipelines without the method never encode."""
    original, own = getattr(pipe, ENCODE_PROMPT, None), vars(pipe)
    if not callable(original):
        yield
        return
    before = {ENCODE_PROMPT: own[ENCODE_PROMPT]} if ENCODE_PROMPT in own else {}

    @wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        outer, state.running = state.running, True
        try:
            result = original(*args, **kwargs)
        finally:
            state.running = outer
        state.encoded = max(state.encoded, _nbytes(result))
        return result

    own[ENCODE_PROMPT] = watched
    try:
        yield
    finally:
        own.pop(ENCODE_PROMPT)
        own.update(before)


def _nbytes(result: Any) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
