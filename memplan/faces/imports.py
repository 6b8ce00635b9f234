"""Waits for a module to be imported by whoever needs it: importing it earlier could change what it becomes."""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Job = Callable[[], object]


def when_imported(name: str, job: Job) -> Job:
    """Do `job` once the module is there, at once where it is; the value stops waiting."""
    if name in sys.modules:
        job()
        return lambda: None
    finder = _Waiting(name, job)
    sys.meta_path.insert(0, finder)

    def stop() -> None:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)

    return stop


class _Waiting(MetaPathFinder):
    """Has the finders after it find one module, and does a job when that has run."""

    def __init__(self, name: str, job: Job) -> None:
        self.name, self.job = name, job

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module's own spec; None for every other module."""
        if name != self.name:
            return None
        after = sys.meta_path[sys.meta_path.index(self) + 1 :]  # those before have passed, or wait for the same module
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in after)), None)
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:
        execute = loader.exec_module

        def followed(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)
            execute(module)
            self.job()

        loader.exec_module = followed
