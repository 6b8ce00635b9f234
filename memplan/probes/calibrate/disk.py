"""Bytes/s of files, read past the page cache."""

import os
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import psutil

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
    cached outside of it. Raises RuntimeError where the kernel cannot be told to drop pages, and where it counts that
    the file came from memory all the same.
    """
    if not hasattr(os, "posix_fadvise"):
        raise RuntimeError("this system has no way to read past its page cache")
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".memplan-") as file:
        size = _write(file.fileno(), seconds / 2, largest)
        end, runs, before = perf_counter() + seconds / 2, list[float](), _fetched()
        while len(runs) < MOST_READS and (not runs or perf_counter() < end):
            runs.append(_read(file.name, size))
        after = _fetched()
    if before is not None and after is not None and after - before < len(runs) * size / 2:
        raise RuntimeError(f"a file in {folder} is read from memory, whatever is done about it")
    took = median(runs)
    return Figure(size / took, took / min(runs) - 1, f"{size // MIB} MiB in {folder}")


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
        start, left = perf_counter(), size
        while left and (got := os.readv(file, [buffer])):
            left -= got
        return perf_counter() - start
    finally:
        os.close(file)


def _fetched() -> int | None:
    """Bytes that this process has had from storage, as the kernel counts them; None where it does not."""
    try:
        return int(psutil.Process().io_counters().read_bytes)
    except (psutil.Error, AttributeError, OSError, RuntimeError):
        return None
