"""Records the calls of pipelines as a program makes them: what each took is measured, predicted and kept."""

import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial, wraps
from typing import Any
from weakref import WeakKeyDictionary

from memplan.faces.history import database
from memplan.faces.imports import when_imported
from memplan.faces.oom.frames import ROOMS, alive

PLAIN, MODULAR = ROOMS
CALL, REGISTER = "__call__", "register_modules"


@contextmanager
def recording(pipe: Any = None) -> Generator[Counter[str]]:
    """Record the calls of `pipe` that are made inside; without it, those of every pipeline, those made later too.

    After a call its prediction takes a dry run, once for each set of arguments, and again where components have been
    changed or set otherwise. On an accelerator torch's peak statistics are reset at the borders of phases, where the
    device is waited for. Errors are the call's own: what goes wrong with recording is a warning. A call that fails is
    not kept. The value counts those that are, by the class of their pipeline.
    """
    recorder = _Recorder(pipe)
    with ExitStack() as undo:
        recorder.undo = undo
        if pipe is not None:
            recorder.watch(type(pipe))
        else:
            for kind in {type(pipe) for pipe in alive()}:
                recorder.watch(kind)
            undo.callback(when_imported(PLAIN[0], recorder.watch_made))
            undo.callback(when_imported(MODULAR[0], lambda: recorder.watch(_kind(MODULAR))))
        yield recorder.kept


def told(kept: Mapping[str, int]) -> str:
    """What was recorded, and where it is."""
    calls = ", ".join(f"{many} {'call' if many == 1 else 'calls'} of {name}" for name, many in kept.items())
    return f"recorded {calls} in {database.file()}; memplan history shows them" if calls else "no call was recorded"


def _kind(room: tuple[str, str]) -> Any:
    return getattr(sys.modules[room[0]], room[1])


class _Recorder:
    """Stands around the calls of pipelines' classes until `undo` is closed."""

    undo: ExitStack

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.kept: Counter[str] = Counter()
        self._watched: set[type] = set()
        self._known: WeakKeyDictionary[Any, dict[tuple[str, str], Any]] = WeakKeyDictionary()
        self._inside = threading.local()

    def watch_made(self) -> None:
        """Watch the class of every pipeline that is made from now on."""
        plain = _kind(PLAIN)
        original = getattr(plain, REGISTER)

        @wraps(original)
        def registered(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            self.watch(type(pipe))
            return original(pipe, *args, **kwargs)

        self._swap(plain, REGISTER, registered)

    def watch(self, kind: type) -> None:
        """Watch the calls of a class, where they are defined."""
        home = next(base for base in kind.__mro__ if CALL in vars(base))
        if home in self._watched:
            return
        self._watched.add(home)
        original = vars(home)[CALL]

        @wraps(original)
        def recorded(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            return self.call(pipe, partial(original, pipe, *args, **kwargs), args, kwargs)

        self._swap(home, CALL, recorded)

    def _swap(self, kind: type, name: str, wrapper: Any) -> None:
        original = vars(kind)[name]
        setattr(kind, name, wrapper)

        def restore() -> None:
            if vars(kind).get(name) is wrapper:
                setattr(kind, name, original)

        self.undo.callback(restore)

    def call(self, pipe: Any, make: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        """Make a call; what another one makes inside, and a dry run, is not recorded."""
        from memplan.probes.fakes.twin import is_twin

        if getattr(self._inside, "a_call", False) or self.pipe not in (None, pipe) or is_twin(pipe):
            return make()
        self._inside.a_call = True
        try:
            return self._recorded(pipe, make, args, kwargs)
        finally:
            self._inside.a_call = False

    def _recorded(self, pipe: Any, make: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        from memplan.faces.history.measuring import Measuring, given

        measuring = _tried(lambda: Measuring(pipe, given(pipe, args, kwargs)))
        try:
            result = make()
        finally:
            if measuring is not None:
                _tried(measuring.stop)
        if measuring is not None:
            _tried(lambda: self._keep(measuring))
        return result

    def _keep(self, measuring: Any) -> None:
        from memplan.applier import applied

        priced = applied(measuring.pipe) is not None  # its plan is
        found = measuring.record(None if priced else partial(self._expected, measuring.pipe, measuring.call))
        if database.save(found):
            self.kept[found.class_name] += 1

    def _expected(self, pipe: Any, call: Mapping[str, Any]) -> Any:
        from memplan.faces.history.expected import expected
        from memplan.faces.history.measuring import digest
        from memplan.faces.history.state import state

        known, key = self._known.setdefault(pipe, {}), (digest(call), state(pipe))
        if key not in known:
            known[key] = expected(pipe, call)
        return known[key]


def _tried(job: Callable[[], Any]) -> Any:
    """What `job` gives; None and a warning where it fails."""
    try:
        return job()
    except Exception as error:
        _warn(f"this call could not be recorded: {type(error).__name__}: {error}")
        return None


@cache
def _warn(text: str) -> None:
    with suppress(UserWarning):  # where warnings are errors, the call's own error must not be hidden
        warnings.warn(text, stacklevel=3)
