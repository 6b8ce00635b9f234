"""The ways into the components of a pipeline, watched while a call of it runs."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from memplan.faces.oom.frames import is_module

Through = Callable[[str, str, tuple[Any, ...], dict[str, Any]], Any]
"""Calls a component by name and way with these arguments, by Doors.call()."""
FORWARD = ("_compiled_call_impl", "_call_impl")
"""How torch calls a module: hooks, those of the libraries included, are inside. The first where it is compiled."""
OTHERS = ("encode", "decode")
"""How diffusers calls a VAE, beside its forward."""


class Doors:
    """While they are open each call of a component of `pipe` goes by `through`. Shut, they leave nothing behind."""

    def __init__(self, pipe: Any, through: Through) -> None:
        """They are shut."""
        self.parts = {name: part for name, part in pipe.components.items() if is_module(part)}
        self.through = through
        self._inside: dict[tuple[str, str], Callable[..., Any]] = {}
        self._before: list[tuple[Any, str, dict[str, Any]]] = []

    def call(self, name: str, way: str, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """The component's own code, with the hooks that it has by now."""
        return self.own(name, way)(*args, **given)

    def own(self, name: str, way: str) -> Callable[..., Any]:
        """The component's own code, which can be called when the doors are shut, too."""
        return self._inside[name, way]

    @contextmanager
    def open(self) -> Generator[None]:
        """Puts them on."""
        self._put_on()
        try:
            yield
        finally:
            self._take_off()

    @contextmanager
    def shut(self) -> Generator[None]:
        """Takes them off for a while, in which components may be changed."""
        self._take_off()
        try:
            yield
        finally:
            self._put_on()

    def _put_on(self) -> None:
        for name, part in self.parts.items():
            forward = next(way for way in FORWARD if getattr(part, way) is not None)
            for way in (forward, *(way for way in OTHERS if callable(getattr(part, way, None)))):
                self._inside[name, way] = getattr(part, way)
                self._before.append((part, way, {way: vars(part)[way]} if way in vars(part) else {}))
                vars(part)[way] = self._door(name, way)

    def _take_off(self) -> None:
        for part, way, before in reversed(self._before):
            vars(part).pop(way, None)
            vars(part).update(before)
        self._before.clear()
        self._inside.clear()

    def _door(self, name: str, way: str) -> Callable[..., Any]:
        def door(*args: Any, **given: Any) -> Any:
            return self.through(name, way, args, given)

        return door
