"""The public names: each exists and is documented, and nothing else leaks out of `import memplan`."""

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import memplan

PUBLIC: tuple[str, ...] = tuple(getattr(memplan, "__all__", ()))


def test_names_are_unique() -> None:
    assert len(set(PUBLIC)) == len(PUBLIC)


def members(name: str) -> Iterator[tuple[str, Any]]:
    """A public name, and of a class its public methods and properties, as they are defined in memplan."""
    value = getattr(memplan, name)
    yield name, value
    for owner in reversed(inspect.getmro(value)) if isinstance(value, type) else ():
        if owner.__module__.startswith("memplan"):
            own = ((key, one) for key, one in vars(owner).items() if not key.startswith("_"))
            yield from ((f"{name}.{key}", one) for key, one in own if callable(one) or hasattr(one, "__get__"))


@pytest.mark.parametrize("name", PUBLIC)
def test_exists_and_is_documented(name: str) -> None:
    for path, value in members(name):
        assert inspect.getdoc(value), f"{path} has no docstring"


@pytest.mark.parametrize("name", PUBLIC)
def test_what_can_be_called_says_its_types(name: str) -> None:
    for path, value in members(name):
        function = inspect.unwrap(getattr(value, "fget", None) or getattr(value, "func", None) or value)
        function = getattr(function, "__func__", function)
        if not inspect.isfunction(function):
            continue
        told, signature = inspect.get_annotations(function), inspect.signature(function)
        untold = [key for key in signature.parameters if key not in told and key not in ("self", "cls")]
        assert not untold, f"{path} does not say the types of {', '.join(untold)}"
        assert "return" in told, f"{path} does not say what it returns"


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
