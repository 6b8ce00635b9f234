"""A third party's strategy: one class and one entry point, and memplan lists it after its own."""

import os
import subprocess
import sys
from pathlib import Path

PLUGIN = '''
"""A technique of somebody else's."""

from dataclasses import dataclass
from typing import ClassVar

from memplan.strategy import Strategy


@dataclass(frozen=True)
class Wish(Strategy):
    """Hopes for the best."""

    name: ClassVar[str] = "wish"
    seats = frozenset()

    @classmethod
    def variants(cls, facts):
        yield cls()

    def redraw(self, run):
        return run

    def apply(self, pipe, device):
        return lambda: None

    def code(self, device="cuda"):
        return ()


STRATEGIES = (Wish,)
'''


def install(folder: Path) -> None:
    """What pip would leave behind for a distribution of one module."""
    (folder / "wishes.py").write_text(PLUGIN, encoding="utf-8")
    info = folder / "wishes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wishes\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[memplan.strategies]\nwishes = wishes:STRATEGIES\n", encoding="utf-8")


def test_plugin_is_listed_after_ours(tmp_path: Path) -> None:
    install(tmp_path)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    code = "from memplan.registry import strategies; print(*(s.name for s in strategies()))"
    command, env = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": path}
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert found.returncode == 0, found.stderr
    *ours, last = found.stdout.split()
    assert last == "wish"
    assert ours
