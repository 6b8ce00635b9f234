"""What the libraries' errors hide of the Hub is said."""

from pathlib import Path

import pytest
from diffusers import AutoencoderKL

from memplan.probes.sources.hub_words import out_of_reach


def test_a_file_that_is_absent_because_the_hub_is_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"does not appear to have a file named config\.json") as said:
        AutoencoderKL.from_pretrained("someone/absent", cache_dir=tmp_path)
    reason = out_of_reach(said.value)
    assert reason is not None
    assert "cannot be reached" in reason
    assert "(HF_HUB_OFFLINE is set)" in reason


def test_a_file_that_is_absent_from_a_folder_is_another_matter(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="config") as said:
        AutoencoderKL.from_pretrained(tmp_path)
    assert out_of_reach(said.value) is None
    assert out_of_reach(MemoryError()) is None
