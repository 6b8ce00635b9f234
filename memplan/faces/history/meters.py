"""Reads what a stretch of a run took: of the device's allocator, of the clock, and of this process's memory."""

import threading
import time
from contextlib import suppress
from typing import Any

import psutil
import torch

from memplan.faces.history.record import PEAKED, Figures

BETWEEN = 0.02
"""Seconds between two looks at host memory: no peak of it is told, so that a shorter one can be missed."""


class Meter:
    """Figures since it was read last. On a device with peaks these are reset, and the device is waited for."""

    def __init__(self, device: torch.device) -> None:
        """Nothing is watched before start()."""
        self.device = device
        self._torch: Any = getattr(torch, device.type) if device.type in PEAKED else None
        self._ram = _Ram()
        self._since = 0.0

    def start(self) -> None:
        """From now on."""
        self._ram.start()
        self.read()

    def stop(self) -> None:
        """No longer."""
        self._ram.stop()

    def read(self) -> Figures:
        """What was taken since the last time."""
        allocated = reserved = None
        if self._torch is not None:
            self._torch.synchronize(self.device)
            allocated = self._torch.max_memory_allocated(self.device)
            reserved = self._torch.max_memory_reserved(self.device)
            self._torch.reset_peak_memory_stats(self.device)
        now = time.perf_counter()
        taken, self._since = now - self._since, now
        return Figures(allocated, reserved, taken, self._ram.read())

    def held(self) -> int:
        """Bytes that tensors hold on the device now; 0 where it does not tell."""
        return int(self._torch.memory_allocated(self.device)) if self._torch is not None else 0

    def clean(self) -> None:
        """Has the device's allocator give its cache back."""
        if self._torch is not None:
            self._torch.empty_cache()


class _Ram:
    """The most resident memory of this process, by looks at it every now and then from a thread of its own."""

    def __init__(self) -> None:
        self._process, self._most = psutil.Process(), 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memplan RAM", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        with suppress(RuntimeError):  # never started
            self._thread.join()

    def read(self) -> int:
        """The most since the last time, and now."""
        now = self._process.memory_info().rss
        most, self._most = max(self._most, now), now
        return most

    def _watch(self) -> None:
        while not self._over.wait(BETWEEN):
            self._most = max(self._most, self._process.memory_info().rss)


def added(a: Figures, b: Figures) -> Figures:
    """Two stretches of one phase: the higher peaks, and the seconds of both."""
    return Figures(
        _most(a.allocated, b.allocated),
        _most(a.reserved, b.reserved),
        (a.seconds or 0.0) + (b.seconds or 0.0),
        _most(a.ram, b.ram),
    )


def _most(*values: int | None) -> int | None:
    return max((value for value in values if value is not None), default=None)
