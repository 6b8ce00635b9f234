"""Calls of pipelines go another way: of one class for a while, or of all that are defined later."""

import sys
from pathlib import Path
from typing import Any

import pytest

from memplan.faces.oom import classes
from memplan.faces.oom.classes import calls_of, every_class


def loudly(self: Any, original: Any, args: Any, given: Any) -> str:
    return f"{type(self).__name__}!" + original(self, *args, **given)


class Base:
    def __call__(self, word: str) -> str:
        return word


class Own(Base):
    def __call__(self, word: str) -> str:
        return word.upper()


class Heir(Base):
    pass


@pytest.mark.parametrize(("kind", "said"), [(Own, "Own!A"), (Heir, "Heir!a")])
def test_calls_of_one_class_go_around_for_a_while(kind: Any, said: str) -> None:
    before = dict(vars(kind))
    with calls_of(kind, loudly):
        assert kind()("a") == said
        assert Base()("a") == "a"
    assert dict(vars(kind)) == before
    assert kind()("a") == said[-1]


def test_every_class_that_comes_later_goes_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that has the base is not loaded for it."""
    (tmp_path / "room_of_bases.py").write_text("class Base:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(classes, "ROOMS", (("room_of_bases", "Base"),))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    every_class(loudly)
    assert "room_of_bases" not in sys.modules
    try:
        import room_of_bases  # type: ignore[import-not-found]

        class Made(room_of_bases.Base):  # type: ignore[misc]
            def __call__(self, word: str) -> str:
                return word

        class MadeOfMade(Made):
            pass

        assert Made()("a") == "Made!a"
        assert MadeOfMade()("a") == "MadeOfMade!a"
    finally:
        sys.modules.pop("room_of_bases", None)
