"""Frees the memory of what failed."""

import gc
from traceback import clear_frames


def let_go(error: BaseException | None) -> None:
    """Frees what the frames of an error hold, which are kept as long as somebody keeps the error.

    Frames that still run keep what they have. What the allocators keep of it goes back to the devices.
    """
    import torch

    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
    for device in (torch.cuda, torch.xpu, torch.mps):
        if getattr(device, "is_available", torch.backends.mps.is_available)():
            device.empty_cache()
