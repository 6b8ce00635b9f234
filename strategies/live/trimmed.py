"""Gives the system back what conversions have freed."""

import ctypes
import sys
from functools import cache
from typing import Any


@cache
def _libc() -> Any:
    """The C library where it is glibc, which keeps freed memory for later; else None."""
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return library if hasattr(library, "malloc_trim") else None


def trim() -> None:
    """Freed memory of the host goes back to the system; without it a quarter more would be held in the end."""
    if _libc():
        _libc().malloc_trim(0)
