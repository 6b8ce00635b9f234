"""The help of every verb is as it was read last."""

import pytest

from tests.faces.help_texts import FOLDER, file, names, text

REWRITE = "run `python -m tests.faces.help_texts` and read what changed"


@pytest.mark.parametrize("name", names())
def test_help_is_as_it_was_read(name: str) -> None:
    assert file(name).read_text(encoding="utf-8") == text(name), REWRITE


def test_there_is_no_help_of_verbs_that_are_gone() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(names())
