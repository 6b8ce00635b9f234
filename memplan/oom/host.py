"""Texts of what allocates on the host: PyTorch, numpy, the C++ library, the system, and what pins memory."""

import re

from memplan.oom.allocation import HOST, PINNED, POSSIBLY, Allocation
from memplan.oom.sizes import find

_PINNED = re.compile(
    r"pinned (?:host )?memory|bytes on host\b|\b(?:cuda|hip)HostAlloc|\bhipHostMalloc|cuMemHostAlloc|HostRegister\b"
    r"|pin memory thread"
)
_NONE_LEFT = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|Torch: not enough memory|\bunable to mmap\b"
    r"|\[Errno 12\]|Cannot allocate memory|\(os error 1455\)|\[WinError (?:8|14|1455)\]|paging file is too small"
    r"|\bUnable to allocate .* for an array\b|std::bad_alloc|\bbad allocation\b|OUT_OF_HOST_MEMORY"
)
_KILLED = re.compile(r"DataLoader worker .* killed by signal: Killed")
_SIZES = (
    r"you tried to allocate {}",
    r"unable to mmap {}",
    r"unable to allocate {}",
    r"out of memory allocating {}",
)


def pinned(text: str) -> Allocation | None:
    """Host memory that could not be pinned for a device."""
    failed = re.search(r"out[ _]of[ _]memory|could not allocate|failed to alloc|MemoryAllocation", text, re.IGNORECASE)
    if not (_PINNED.search(text) and failed):
        return None
    asked = (r"memory of size: (\d+)()", r"failed to alloc(?:ate)? {}")
    return Allocation(PINNED, asked=_bare(asked[0], text) or find(asked[1], text))


def _bare(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None


def host(text: str, *, of_memory: bool) -> Allocation | None:
    """Host memory. `of_memory` is whether the error's class is MemoryError, whose text may be empty."""
    if of_memory or _NONE_LEFT.search(text):
        asked = next((found for pattern in _SIZES if (found := find(pattern, text))), None)
        return Allocation(HOST, asked=asked)
    return Allocation(HOST, certainty=POSSIBLY) if _KILLED.search(text) else None
