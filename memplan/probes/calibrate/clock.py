"""Times work on a device: warmed up, in batches long enough for the clock, and waited for."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch

BATCH = 0.02
"""Seconds that a batch of runs takes at least, where one run is shorter."""
MOST_RUNS, MOST_BATCHES = 1000, 9
Work = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """Seconds of one run: the median of the batches, and the shortest."""

    median: float
    least: float


@dataclass(frozen=True)
class Figure:
    """What one measurement gives, as in a `Reading`."""

    value: float
    spread: float = 0.0
    note: str = ""
    assumed: float | None = None


def rate(amount: float, timing: Timing, note: str = "") -> Figure:
    """`amount` for each run of `timing`, per second."""
    return Figure(amount / timing.median, timing.median / timing.least - 1, note)


def timed(work: Work, device: str, seconds: float) -> Timing:
    """How long `work` takes until `device` is done with it, measured for about `seconds` after a warm-up."""
    return _timing(lambda runs: batch(work, device, runs), seconds)


def timed_on_host(work: Work, device: str, seconds: float) -> Timing:
    """How long the host is kept by `work`; `device` is waited for after each run, outside of what is timed."""
    return _timing(lambda runs: _issued(work, device, runs), seconds)


def batch(work: Work, device: str, runs: int = 1) -> float:
    """Seconds of one of so many runs, the last of them finished."""
    wait(device)
    start = perf_counter()
    for _ in range(runs):
        work()
    wait(device)
    return (perf_counter() - start) / runs


def wait(device: str) -> None:
    """Until `device` has done what it was given; the CPU has."""
    if device != "cpu":
        torch.accelerator.synchronize()


def _issued(work: Work, device: str, runs: int) -> float:
    spent = 0.0
    for _ in range(runs):
        wait(device)
        start = perf_counter()
        work()
        spent += perf_counter() - start
    return spent / runs


def _timing(measure: Callable[[int], float], seconds: float) -> Timing:
    """The first run loads kernels and takes memory, and does not count; the second says how many make a batch."""
    measure(1)
    runs = max(1, min(MOST_RUNS, int(min(BATCH, seconds / 3) / max(measure(1), 1e-9))))
    found, end = [measure(runs)], perf_counter() + seconds
    while len(found) < MOST_BATCHES and perf_counter() < end:
        found.append(measure(runs))
    return Timing(median(found), min(found))
