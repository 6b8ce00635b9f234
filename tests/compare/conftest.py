"""Each test has a cache of its own; one comparison is made once for all."""

from pathlib import Path

import pytest

from memplan.faces import store
from memplan.faces.compare.comparison import Comparison
from tests.compare.sides import LOSSY, both, called
from tests.pipelines import build


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a test is kept."""
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def lossy() -> Comparison:
    """Two seeds of two pictures each under a lossy plan, the first seed twice."""
    return both(build("flux"), LOSSY, called("flux", num_images_per_prompt=2), (3, 4), 1)
