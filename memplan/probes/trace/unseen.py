"""Hides from transformers that tensors are fake, for which it would take another branch than for real ones."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from transformers.utils import import_utils


@contextmanager
def unseen_fakes() -> Generator[None]:
    """Let transformers take fake tensors for real for the length of the context.

    For fake ones it always makes a mask, for real ones only where a token is masked, and the kernel of the attention
    depends on it (`is_tracing` of transformers/utils/import_utils.py).
    """
    library: Any = import_utils
    original = library.is_fake_tensor
    library.is_fake_tensor = lambda tensor: False
    try:
        yield
    finally:
        library.is_fake_tensor = original
