"""Each test has a history of its own."""

from pathlib import Path

import pytest

from memplan.faces import store
from memplan.faces.history import database, recording


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this test's history; each warning is told anew."""
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "cache"))
    database._warn.cache_clear()
    recording._warn.cache_clear()
    return tmp_path / "cache"
