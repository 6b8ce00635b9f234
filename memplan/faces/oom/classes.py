"""Has calls of pipelines go another way: of one class for a while, or of all that a script will define."""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

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


def every_class(around: Around) -> None:
    """Has calls of every pipeline of diffusers go by `around`, from when diffusers is imported, which this does not."""
    sys.meta_path.insert(0, _Rooms(around))


class _Rooms(importlib.abc.MetaPathFinder):
    """Sees the modules come that have the classes of pipelines."""

    def __init__(self, around: Around) -> None:
        self.around, self.awaited = around, dict(ROOMS)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        base = self.awaited.pop(name, None)
        spec = importlib.util.find_spec(name) if base else None
        if base and spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, base, self.around)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads a module as its own loader does, and then has the subclasses of its class wrapped as they are defined."""

    def __init__(self, own: Any, base: str, around: Around) -> None:
        self.own, self.base, self.around = own, base, around

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.own.exec_module(module)
        _watch(getattr(module, self.base), self.around)


def _watch(base: Any, around: Around) -> None:
    """Wraps the call of `base` and of each subclass that has one of its own."""

    def defined(cls: Any, /, **options: Any) -> None:
        super(base, cls).__init_subclass__(**options)
        if "__call__" in vars(cls):
            _wrap(cls, around)

    if "__call__" in vars(base):
        _wrap(base, around)
    base.__init_subclass__ = classmethod(defined)
