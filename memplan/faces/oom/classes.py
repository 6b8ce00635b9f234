"""Has calls of pipelines go another way: of one class for a while, or of all that a script will define."""

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

from memplan.faces.imports import when_imported
from memplan.faces.oom.frames import ROOMS

Around = Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Makes the call of a pipeline, given what its class would have called."""


@contextmanager
def calls_of(kind: type, around: Around, method: str = "__call__") -> Generator[None]:
    """While it lasts, calls of this method of instances of `kind` go by `around`."""
    own = vars(kind).get(method)
    _wrap(kind, around, method)
    try:
        yield
    finally:
        if own is None:
            delattr(kind, method)
        else:
            setattr(kind, method, own)


def _wrap(kind: Any, around: Around, method: str = "__call__") -> None:
    original = getattr(kind, method)

    @wraps(original)
    def call(self: Any, *args: Any, **given: Any) -> Any:
        return around(self, original, args, given)

    setattr(kind, method, call)


def every_class(around: Around, methods: Sequence[str] = ("__call__",)) -> None:
    """Has calls of these methods of every pipeline of diffusers go by `around`.

    That is from when diffusers is imported, which this does not.
    """
    for room, base in ROOMS:
        when_imported(room, partial(_watch, room, base, around, methods))


def _watch(room: str, name: str, around: Around, methods: Sequence[str]) -> None:
    """Wraps methods of a class, and of each subclass that has one of its own, as it is defined."""
    base: Any = getattr(sys.modules[room], name)

    def wrapped(cls: Any) -> None:
        for method in methods:
            if method in vars(cls):
                _wrap(cls, around, method)

    def defined(cls: Any, /, **options: Any) -> None:
        super(base, cls).__init_subclass__(**options)
        wrapped(cls)

    wrapped(base)
    base.__init_subclass__ = classmethod(defined)
