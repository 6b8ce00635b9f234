"""Applies, in the middle of a pipeline's call, what takes less memory than what has just failed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memplan import planner
from memplan.faces import measuring
from memplan.faces.quiet import libraries_quiet
from memplan.faces.target import HERE, Target, machine, of_kind
from memplan.facts import GIB, Facts
from memplan.facts.units import amount
from memplan.oom import Allocation
from memplan.registry import strategies
from memplan.strategy import Strategy, Undo

CPU = "cpu"
EVERYTHING = 1 << 62
"""More bytes than any technique saves."""


@dataclass(frozen=True)
class Step:
    """What was applied: how to undo it, the place that it is for, and what it does there, in words."""

    undo: Undo
    where: str
    words: str


class Less:
    """The strategies that one call of a pipeline carries by now, and what follows."""

    def __init__(self, pipe: Any, call: Mapping[str, Any], steps: Sequence[Strategy]) -> None:
        """`call` are the arguments that a plan rests on, `steps` what former calls have taken."""
        self.pipe, self.call, self.steps = pipe, call, tuple(steps)
        self._facts: Facts | None = None
        self._kept = _placed(pipe)

    def steps_for(self, failed: Allocation, door: tuple[str, str], *, last: bool) -> Iterator[Step]:
        """Applies what takes strictly less memory where memory ran out, and yields it; nothing where nothing does.

        That is the technique that gives up the least of those that save what was missing, and where it is the `last`
        attempt all that saves something. The first time, it takes a dry run of the call. Raises what that raises;
        techniques that cannot be applied to the pipeline as it is are passed over.
        """
        device = str(self.pipe._execution_device)
        if not failed.on_device and device.partition(":")[0] != CPU:
            return
        measured, at = self._measured(failed, device), self._place(*door)
        least = EVERYTHING if last else failed.missing or failed.asked or 1
        step = self._applied(measured, at, least, device)
        while step is not None:
            yield step
            step = self._applied(measured, at, least, device) if last else None

    def _applied(self, measured: Facts, at: tuple[str, str], least: int, device: str) -> Step | None:
        for found in planner.further(measured, (*self._kept, *self.steps), at, least, strategies()):
            try:
                undo = found.strategy.apply(self.pipe, device)
            except Exception:  # the libraries refuse in many words what does not go with what is there
                continue
            self.steps = (*self.steps, found.strategy)
            saved = f"{amount(found.after)} in place of {amount(found.before)} by prediction"
            return Step(undo, at[0], f"{found.strategy}: {saved}")
        return None

    def _measured(self, failed: Allocation, device: str) -> Facts:
        """Facts of the call on the memory that ran out, once for all attempts of it."""
        from torch.utils._python_dispatch import _disable_current_modes

        if self._facts is None:
            here, room = machine(HERE), failed.usable
            named = Target(vram=max(room or here.ram, 1) / GIB)
            target = named if here.gpu is None else Target(index=failed.index or 0)
            with libraries_quiet(), _disable_current_modes():  # nobody's mode is to see or stop the dry run
                found = measuring.facts(self.pipe, self.call, target=target)
            gpu, host = found.machine.gpu, here.host
            if gpu is not None and room is not None:
                gpu = replace(gpu, total=failed.capacity or gpu.total, free=room)
            self._facts = of_kind(device, replace(found, machine=replace(found.machine, gpu=gpu, host=host)))
        return self._facts

    def _place(self, name: str, way: str) -> tuple[str, str]:
        if not name:
            return "post-processing", ""
        from memplan.probes.trace import phase

        method = way if way in ("encode", "decode") else "forward"
        return phase(self.pipe.components[name], name, method), name


def _placed(pipe: Any) -> tuple[Strategy, ...]:
    """Where a plan of the pipeline's user has put components; its other parts a dry run sees in the pipeline itself."""
    from memplan.applier import applied

    done = applied(pipe)
    own = planner.placements(done.strategies) if done else ()
    return tuple(strategy for strategy in own if strategy.name != "on_gpu")
