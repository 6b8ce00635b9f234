"""What can mean nothing but a path, on Windows and elsewhere."""

import pytest

from memplan.probes.sources import _written_as_path


@pytest.mark.parametrize("text", ["./model", "../model", "~/model", "/models/flux", "./flux.1-dev"])
@pytest.mark.parametrize("windows", [False, True])
def test_paths_anywhere(text: str, windows: bool) -> None:
    assert _written_as_path(text, windows=windows)


@pytest.mark.parametrize(
    "text",
    [
        r".\model",
        r"..\model",
        r"~\model",
        r"C:\models\flux",
        "C:/models/flux",
        r"\\server\models\flux",
        r"\models\flux",
    ],
)
def test_paths_on_windows(text: str) -> None:
    assert _written_as_path(text, windows=True)
    assert not _written_as_path(text, windows=False)


@pytest.mark.parametrize("text", ["flux.1-dev", "black-forest-labs/FLUX.1-dev", "owner/name@refs/pr/3", ".", "~me"])
@pytest.mark.parametrize("windows", [False, True])
def test_names(text: str, windows: bool) -> None:
    assert not _written_as_path(text, windows=windows)
