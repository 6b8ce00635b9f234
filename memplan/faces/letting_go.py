"""Frees the memory of what failed."""

import gc
from collections.abc import Iterator
from traceback import clear_frames, format_tb, walk_tb


def let_go(error: BaseException | None) -> None:
    """Frees what the frames of an error hold, which are kept as long as somebody keeps the error.

    Frames that still run keep what they have, and functions inside functions what they share with the outer one. What
    the allocators keep of it goes back to the devices.
    """
    for each in _chain(error):
        clear_frames(each.__traceback__)
        for frame, _ in walk_tb(each.__traceback__):
            _ = frame.f_locals  # before Python 3.13 the copy that somebody has read keeps the values until read again
    _give_back()


def forget(error: BaseException) -> None:
    """Frees all that an error holds: its traceback goes, and stays with it as text, in a note."""
    text = "".join(format_tb(error.__traceback__)).rstrip()
    for each in _chain(error):
        clear_frames(each.__traceback__)
        each.__traceback__ = None
    error.add_note(f"It was raised here, before memplan tried again:\n{text}")
    _give_back()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _give_back() -> None:
    import torch

    gc.collect()
    for device in (torch.cuda, torch.xpu):
        if device.is_available():
            device.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
