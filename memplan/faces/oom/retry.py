"""Makes again what ran out of memory, with less of it: a component's call where it failed, else the pipeline's."""

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from memplan.faces.letting_go import forget
from memplan.faces.oom.cause import out_of_memory
from memplan.faces.oom.classes import calls_of, every_class
from memplan.faces.oom.doors import Doors
from memplan.faces.oom.frames import frames
from memplan.faces.oom.less import Less
from memplan.faces.oom.scene import PLACE, given_to
from memplan.faces.oom.start import Start
from memplan.faces.oom.tell import say
from memplan.faces.oom.where import place
from memplan.oom import Allocation
from memplan.strategy import Strategy, Undo

ATTEMPTS = 3
"""How often the same call of a component is made again within one call of the pipeline."""
GIVEN_UP, DOOR = "_memplan_given_up", "_memplan_door"
"""Marks of an error: nothing more can be done for it, and the way into the component that raised it."""
RETRIED: WeakSet[Any] = WeakSet()
"""Pipelines that had to go on with less: what such a call took is no one plan's."""
OWN_CODE = ("", "")
"""The door of the pipeline's own code, which has none."""


@contextmanager
def retrying(pipe: Any) -> Generator["Retry"]:
    """Calls of `pipe` inside are made again with less memory where they run out of it; what that took is undone."""
    with _undone() as undos:
        retry = Retry(pipe, undos.callback)
        with calls_of(type(pipe), retry.around):
            yield retry


def retry_everywhere() -> None:
    """The same for every pipeline of this process, for as long as that lives: nothing is undone, and none is kept."""
    known: WeakKeyDictionary[Any, Retry] = WeakKeyDictionary()

    def around(pipe: Any, original: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        from memplan.probes.fakes.twin import is_twin

        if is_twin(pipe):  # a dry run, which is to see the pipeline's own code
            return original(pipe, *args, **given)
        return known.setdefault(pipe, Retry(pipe, lambda _: None)).around(pipe, original, args, given)

    every_class(around)


@contextmanager
def _undone() -> Generator[ExitStack]:
    """Undoes at the end what it is given meanwhile. What cannot be undone is told, and hides no error."""
    undos = ExitStack()
    try:
        yield undos
    finally:
        try:
            undos.close()
        except Exception as error:
            say(f"memplan: what was applied for a retry could not be undone: {type(error).__name__}: {error}")


class Retry:
    """The calls of one pipeline, and the strategies that have been applied, in order, so that they fit."""

    def __init__(self, pipe: Any, later: Callable[[Undo], object]) -> None:
        """Nothing is applied. `later` is given what undoes that of a call that ended well; of others nothing stays.

        The pipeline is held while a call of it runs.
        """
        self._pipe, self._later, self._undos = ref(pipe), later, ExitStack()
        self.strategies: tuple[Strategy, ...] = ()
        self.less: Less | None = None
        self.doors: Doors | None = None
        self.tried: Counter[tuple[str, str]] = Counter()

    # ---- the pipeline ----
    def around(self, pipe: Any, original: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """A call of the pipeline. One of another, or from inside one of its own, is made as it is."""
        if pipe is not self._pipe() or self.doors is not None:
            return original(pipe, *args, **given)
        self.tried.clear()
        try:
            start, doors = Start(args, given), Doors(pipe, self.through)
            less = Less(pipe, given_to(pipe, args, given), self.strategies)
        except Exception as error:
            say(f"memplan: this call is made without retries: {type(error).__name__}: {error}")
            return original(pipe, *args, **given)
        self.doors, self.less = doors, less
        try:
            with _undone() as self._undos:  # where the call fails; else what it took stays for those that follow
                with doors.open():
                    result = self._again(OWN_CODE, start, lambda: original(pipe, *args, **given))
                self._later(self._undos.pop_all().close)
            self.strategies = less.steps
            return result
        finally:
            self.doors = self.less = None

    # ---- its components ----
    def through(self, name: str, way: str, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """A call of a component: made again in place, where nothing of its start is lost."""
        doors = self.doors
        assert doors is not None
        start, cached = Start(args, given), getattr(doors.parts[name], "is_cache_enabled", False)
        here = start.plain and not cached
        return self._again((name, way), start, lambda: doors.call(name, way, args, given), in_place=here)

    def _again(self, door: tuple[str, str], start: Start, call: Callable[[], Any], *, in_place: bool = True) -> Any:
        """What `call` returns; where it runs out of memory, it is made again as often as it can be with less.

        One that cannot be made again `in_place`, or has written to what it was given, leaves that to the whole call.
        """
        first: Exception | None = None
        while True:
            try:
                return call()
            except Exception as error:
                if first is None and (GIVEN_UP in vars(error) or out_of_memory(error) is None):
                    raise
                door = vars(error).setdefault(DOOR, door)
                if first is None and not (in_place and start.unchanged):
                    raise
                failed = error
            first = first or failed
            if not (start.unchanged and self._eased(failed, door)):
                break
            start.restore()
            del failed
        vars(first)[GIVEN_UP] = True
        try:
            raise first
        finally:
            del first

    def _eased(self, error: Exception, door: tuple[str, str]) -> bool:
        """Frees what the failed attempt held, and applies what takes less than it did. False where nothing does."""
        found, doors, less = out_of_memory(error), self.doors, self.less
        if found is None or doors is None or less is None:
            return False
        try:
            if PLACE not in vars(error):
                vars(error)[PLACE] = place(frames(error), None, (less.pipe,))
            forget(error)
            RETRIED.add(less.pipe)
            self.tried[door] += 1
            if self.tried[door] > ATTEMPTS:
                return False
            with doors.shut():
                return self._apply(less, found[1], door)
        except Exception as ours:
            say(f"memplan: planning a retry failed with {type(ours).__name__}: {ours}")
            return False

    def _apply(self, less: Less, failed: Allocation, door: tuple[str, str]) -> bool:
        """Whether something could be applied; the last attempt has all that there is."""
        applied = False
        for step in less.steps_for(failed, door, last=self.tried[door] == ATTEMPTS):
            self._undos.callback(step.undo)
            say(f"memplan: memory ran out in {step.where}; trying that again with {step.words}")
            applied = True
        if not applied:
            say("memplan: no retry, as nothing that can be applied in the middle of a call takes less memory")
        return applied
