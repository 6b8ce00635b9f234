"""Each test has a cache of its own."""

from pathlib import Path

import pytest

from memplan.faces import store


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a test is kept."""
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "cache"))
