"""The public names: each exists and is documented, and nothing else leaks out of `import memplan`."""

import inspect
from types import ModuleType

import pytest

import memplan

PUBLIC: tuple[str, ...] = tuple(getattr(memplan, "__all__", ()))


def test_names_are_unique() -> None:
    assert len(set(PUBLIC)) == len(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_exists_and_is_documented(name: str) -> None:
    value = getattr(memplan, name)
    if callable(value):
        assert inspect.getdoc(value), f"{name} has no docstring"


def test_dir_shows_the_public_names() -> None:
    assert set(PUBLIC) <= set(dir(memplan))


def test_nothing_else_leaks() -> None:
    leaked = {
        name for name, value in vars(memplan).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }  # submodules appear as they are imported
    assert leaked <= set(PUBLIC)


def test_a_wrong_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(memplan, "no_such_name")  # noqa: B009 - a plain attribute would not pass the type checkers
