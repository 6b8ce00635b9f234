"""Applies a saved plan to the pipeline of a script while that runs, and keeps the script from placing it itself."""

import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any
from weakref import WeakSet

from memplan.errors import BadInput, MemplanError, NothingFits
from memplan.faces.imports import when_imported
from memplan.faces.oom.classes import every_class
from memplan.faces.oom.frames import ROOMS
from memplan.faces.oom.scene import given_to
from memplan.faces.target import HERE, Target
from memplan.faces.travel.files import apply
from memplan.faces.typed import sentence
from memplan.planner.saved import Saved

PLACES = ("enable_group_offload", "enable_model_cpu_offload", "enable_sequential_cpu_offload")
"""Methods of a pipeline that place it, beside .to()."""

CALL, STEPS = "__call__", ("encode_prompt", "encode_image")
"""The methods of a pipeline that compute; of a call that begins with another one than the first, that of the plan is
priced."""


class Running:
    """From install() on, pipelines of the plan's class get the plan before their first call; nobody else moves them.

    `done` are those that have it, `others` the classes of those that were called without.
    """

    def __init__(self, saved: Saved, device: str = "cuda", target: Target = HERE, *, force: bool = False) -> None:
        self._saved, self._device, self._target, self._force = saved, device, target, force
        self.done: WeakSet[Any] = WeakSet()
        self.others: set[str] = set()
        self._threads = threading.local()

    def install(self) -> None:
        """Waits for diffusers, which this does not import."""
        every_class(self.around, (CALL, *STEPS))
        when_imported(ROOMS[0][0], self._hold)

    def around(self, pipe: Any, original: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """A call of a pipeline, or of a part of its work: the first one of its class has the plan applied before it."""
        if self._busy:  # a dry run calls a twin of the pipeline
            return original(pipe, *args, **given)
        self._threads.busy = True
        self.others |= set() if self._is_meant(pipe) else {type(pipe).__name__}
        try:
            if self._is_meant(pipe) and pipe not in self.done:
                self._apply(pipe, given_to(pipe, args, given) if original.__name__ == CALL else {})
            return original(pipe, *args, **given)
        finally:
            self._threads.busy = False

    @property
    def _busy(self) -> bool:
        """Whether this thread is inside of a pipeline's call."""
        return getattr(self._threads, "busy", False)

    def _is_meant(self, pipe: Any) -> bool:
        return type(pipe).__name__ == self._saved.model["class"]

    def _apply(self, pipe: Any, call: dict[str, Any]) -> None:
        """Ends the program, with a sentence and an exit code, where the plan cannot be applied."""
        try:
            settings: dict[str, Any] = {"device": self._device, "force": self._force, "target": self._target}
            apply(
                self._saved, pipe, **settings, **{name: value for name, value in call.items() if name not in settings}
            )
        except MemplanError as error:
            print(f"memplan: {sentence(error)}", file=sys.stderr)
            raise SystemExit(3 if isinstance(error, NothingFits) else 2 if isinstance(error, BadInput) else 1) from None
        self.done.add(pipe)
        print(f"memplan: {self._saved} is applied to {type(pipe).__name__}", file=sys.stderr)

    @property
    def unused(self) -> str:
        """Why the plan was applied to nothing; "" where it was applied."""
        called = f"called {', '.join(sorted(self.others))}" if self.others else "called no pipeline"
        return "" if self.done else f"it is for {self._saved.model['class']}, and the script {called}"

    # ---- what the script does by itself ----
    def _hold(self) -> None:
        kind = getattr(sys.modules[ROOMS[0][0]], ROOMS[0][1])
        for name in PLACES:
            self._swap(kind, name, lambda original, pipe, args, given: None)
        self._swap(kind, "to", _as_dtype)

    def _swap(self, kind: Any, name: str, instead: Callable[..., Any]) -> None:
        original = getattr(kind, name, None)
        if original is None:
            return

        @wraps(original)
        def placed(pipe: Any, *args: Any, **given: Any) -> Any:
            if self._busy or not self._is_meant(pipe):
                return original(pipe, *args, **given)
            return instead(original, pipe, args, given)

        setattr(kind, name, placed)


def _as_dtype(original: Callable[..., Any], pipe: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """.to() with its dtype alone."""
    import torch

    dtypes = [value for value in (*args, *given.values()) if isinstance(value, torch.dtype)]
    return original(pipe, dtypes[0]) if dtypes else pipe
