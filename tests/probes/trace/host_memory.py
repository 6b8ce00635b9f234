"""How much the memory of a process rises while pictures are made. It runs in a process that holds little else."""

import ctypes
import json
import sys
from pathlib import Path

import psutil
import torch
from diffusers.video_processor import VideoProcessor

from memplan.facts import MIB

M_MMAP_THRESHOLD = -3
"""glibc's number of the size from which blocks are mapped one by one (malloc.h)."""


def rise(method: str, kind: str, dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes by which the memory of this process rises at most in a processor's `method`.

    What is freed goes back to the system at once.
    """
    images, processor = torch.rand(shape).to(getattr(torch, dtype)), VideoProcessor()
    work = getattr(processor, method)
    work(images[:, :, :1], output_type=kind)
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, MIB)
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is there
    before = psutil.Process().memory_info().rss
    made = work(images, output_type=kind)
    status = Path("/proc/self/status").read_text()
    assert made is not None
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 - before


if __name__ == "__main__":
    print(json.dumps([rise(*case) for case in json.load(sys.stdin)]))
