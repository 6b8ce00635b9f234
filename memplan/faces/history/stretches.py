"""Parts a real call into the phases of a bill, at the doors of the pipeline's components."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch

from memplan.faces.history.meters import Meter, added
from memplan.faces.history.record import Figures
from memplan.oom.place import DECODING, POSTPROCESSING, PREPARING
from memplan.probes.trace import phase
from memplan.probes.trace.doors import METHODS

OWN_CODE, FORWARD = "", "forward"
WHOLE = "_compiled_call_impl"
"""Where torch keeps what module.compile() made: it would compile a hook too, so that the call is watched from here."""


@dataclass
class Stretches:
    """What each phase took so far. Between components it is the pipeline's own code that runs, as in a dry run."""

    meter: Meter
    taken: dict[tuple[str, str], Figures] = field(default_factory=dict)
    place: tuple[str, str] = (PREPARING, OWN_CODE)
    depth: int = 0

    def enter(self, place: tuple[str, str]) -> None:
        """A component is called; inside another one that does not count."""
        if not self.depth:
            self.close(place)
        self.depth += 1

    def leave(self, method: str) -> None:
        """It has returned."""
        self.depth -= 1
        if not self.depth:
            at, _ = self.place
            self.close((POSTPROCESSING if at == DECODING and method == "decode" else at, OWN_CODE))

    def close(self, following: tuple[str, str] = (POSTPROCESSING, OWN_CODE)) -> None:
        """A stretch ends."""
        read = self.meter.read()
        self.taken[self.place] = added(self.taken[self.place], read) if self.place in self.taken else read
        self.place = following


@contextmanager
def watched(pipe: Any, meter: Meter) -> Generator[Stretches]:
    """Watch a call of `pipe` that is made inside; then nothing of it is left on the components."""
    stretches, components = Stretches(meter), getattr(pipe, "components", {})
    with ExitStack() as undo:
        for name, module in components.items():
            if isinstance(module, torch.nn.Module):
                _stand_at(undo, stretches, name, module)
        meter.start()
        undo.callback(meter.stop)
        yield stretches
        stretches.close()


def _stand_at(undo: ExitStack, stretches: Stretches, name: str, module: torch.nn.Module) -> None:
    """A component is reached by torch's own call, which ends in its forward, or by another of its methods."""
    plain = getattr(module, "_orig_mod", module)
    places = {method: (phase(plain, name, method), name) for method in METHODS}
    if getattr(module, WHOLE, None) is None:
        before = module.register_forward_pre_hook(lambda *_: stretches.enter(places[FORWARD]), prepend=True)
        after = module.register_forward_hook(lambda *_: stretches.leave(FORWARD), always_call=True)
        undo.callback(after.remove)
        undo.callback(before.remove)
    else:
        _wrap(undo, stretches, module, WHOLE, places[FORWARD])
    for method in METHODS:
        if method != FORWARD and callable(getattr(type(plain), method, None)):
            _wrap(undo, stretches, module, method, places[method])


def _wrap(undo: ExitStack, stretches: Stretches, module: torch.nn.Module, method: str, place: tuple[str, str]) -> None:
    attributes, original = vars(module), getattr(module, method)
    had = method in attributes

    @wraps(original)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        stretches.enter(place)
        try:
            return original(*args, **kwargs)
        finally:
            stretches.leave(method)

    def restore() -> None:
        if attributes.get(method) is not guarded:  # somebody's hook came or went during the call: it is theirs now
            return
        if had:
            attributes[method] = original
        else:
            del attributes[method]

    attributes[method] = guarded
    undo.callback(restore)
