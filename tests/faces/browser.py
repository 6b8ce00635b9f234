"""A headless Chromium, where there is one: what a page is once its scripts have run, how it looks, what it says."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOUND = next(filter(None, map(shutil.which, NAMES)), None)
needed = pytest.mark.skipif(FOUND is None, reason=f"no browser: none of {', '.join(NAMES)} is installed")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--enable-logging=stderr", "--virtual-time-budget=3000",
)  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """The page as it is in the end, and what it wrote to the console, complaints included."""

    dom: str
    console: list[str]


def opened(page: Path) -> Opened:
    """Opens a page."""
    out, err = _run(page, "--dump-dom")
    return Opened(out, _console(err))


def looks(page: Path, size: tuple[int, int]) -> Path:
    """A screenshot of a page, beside it."""
    picture = page.with_suffix(".png")
    _run(page, f"--screenshot={picture}", f"--window-size={size[0]},{size[1]}")
    return picture


def _run(page: Path, *flags: str) -> tuple[str, str]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [str(FOUND), *FLAGS, *flags, f"--user-data-dir={profile}", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def _console(log: str) -> list[str]:
    return re.findall(r":CONSOLE[:(]\d+\)?\] (.*)", log)
