"""Bytes/s of files, read past the page cache."""

import os
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from memplan.facts import MIB
from memplan.probes.calibrate.clock import Figure

CHUNK = 8 * MIB
LARGEST = 1024 * MIB
MOST_READS = 5


def model_folder() -> Path:
    """Where models are read from: the cache of the Hub if it can be written to, else the folder of temporary files."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    return cache if cache.is_dir() and os.access(cache, os.W_OK) else Path(tempfile.gettempdir())


def disk(folder: Path, seconds: float, largest: int = LARGEST) -> Figure:
    """Bytes/s of reading a file of ours in `folder` from front to back, after the kernel has dropped its pages.

    Its size is what can be written in half of `seconds`, up to `largest`. A disk of a virtual machine may have been
    cached outside of it. Raises RuntimeError where the kernel keeps the pages or cannot be told to drop them.
    """
    if not hasattr(os, "posix_fadvise"):
        raise RuntimeError("this system has no way to read past its page cache")
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".memplan-") as file:
        size = _write(file.fileno(), seconds / 2, largest)
        end, runs = perf_counter() + seconds / 2, list[float]()
        while len(runs) < MOST_READS and (not runs or perf_counter() < end):
            runs.append(_read(file.name, size))
        told = _cached(file.name) is not None
    took = median(runs)
    doubt = "" if told else ", which may have stayed in memory"
    return Figure(size / took, took / min(runs) - 1, f"{size // MIB} MiB in {folder}{doubt}")


def _write(file: int, seconds: float, largest: int) -> int:
    """Random bytes, which no file system can make smaller; the value is how many."""
    end, size = perf_counter() + seconds, 0
    while size < largest and (not size or perf_counter() < end):
        size += os.write(file, os.urandom(min(CHUNK, largest - size)))
        os.fdatasync(file)
    return size


def _read(path: str, size: int) -> float:
    """Seconds of reading the whole file."""
    file, buffer = os.open(path, os.O_RDONLY), bytearray(CHUNK)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        if _cached(path):
            raise RuntimeError("the file stays in the page cache, as in a file system that lies in memory")
        start, left = perf_counter(), size
        while left and (got := os.readv(file, [buffer])):
            left -= got
        return perf_counter() - start
    finally:
        os.close(file)


def _cached(path: str) -> bool | None:
    """Whether the first byte can be had without waiting for the disk; None where the system does not tell."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(file, [bytearray(1)], 0, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False
    except (OSError, AttributeError):
        return None
    finally:
        os.close(file)
