"""The calls of one side: the same seeds under one plan, each measured, with what they return."""

import gc
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from inspect import signature
from traceback import extract_tb
from typing import Any

import torch

from memplan.errors import MemplanError
from memplan.faces.compare.allocations import peak_of
from memplan.faces.compare.comparison import Side
from memplan.faces.compare.metrics import same
from memplan.faces.compare.values import Value, values
from memplan.faces.history.expected import of_plan
from memplan.faces.history.measuring import Measuring, device_of, given
from memplan.faces.history.meters import added
from memplan.faces.history.record import PEAKED, Figures
from memplan.faces.letting_go import let_go
from memplan.planner import Plan
from memplan.registry import EVERYTHING

Outputs = dict[int, tuple[Value, ...]]
"""Those of the calls of a side, by seed."""


@dataclass
class Caller:
    """Calls a pipeline with the same arguments and other seeds."""

    pipe: Any
    call: Mapping[str, Any]
    seeds: tuple[int, ...]
    repeat: int
    say: Callable[[str], None]
    planned: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Raises TypeError for arguments that the call does not take."""
        self.planned = given(self.pipe, (), self.call)

    def side(self, plan: Plan, device: str, *, predicted: bool) -> Side:
        """The side of `plan` before any call."""
        place = "CPU" if torch.device(device).type == "cpu" else "GPU"
        name = f"everything on the {place}" if str(plan) == EVERYTHING else str(plan)
        return Side(name, plan.bill.loss.word, _whole(plan) if predicted else None)

    def run(self, side: Side) -> tuple[Side, Outputs]:
        """Every seed once, and the first one `repeat` times more; the pipeline is under the side's plan already.

        What is left of the other side in cycles is freed before, so that it is in no peak.
        """
        gc.collect()
        outputs: Outputs = {}
        taken: list[Figures] = []
        repeats: bool | None = None
        for turn, seed in enumerate((*self.seeds, *self.seeds[:1] * self.repeat), 1):
            self.say(f"{side.plan}: call {turn} of {len(self.seeds) + self.repeat}")
            figures, found = self._measured(seed, clean=turn == 1)
            taken.append(figures)
            if seed in outputs:
                repeats = repeats is not False and alike(outputs[seed], found)
            outputs.setdefault(seed, found)
        held = self._held() if self.repeat else None
        return replace(side, first=taken[0], steady=tuple(taken[1:]), held=held, repeats=repeats), outputs

    def once(self, seed: int) -> tuple[Value, ...]:
        """What a call returns."""
        return values(self._call(seed), self.call)

    def _measured(self, seed: int, *, clean: bool) -> tuple[Figures, tuple[Value, ...]]:
        measuring = Measuring(self.pipe, self.planned, clean=clean)
        try:
            result = self._call(seed)
        finally:
            measuring.stop()
        return reduce(added, measuring.stretches.taken.values()), values(result, self.call)

    def _held(self) -> int | None:
        """What one more call allocates, where the device keeps no peak: the profiler is not in the seconds."""
        if device_of(self.pipe).type in PEAKED:
            return None
        self.say("counting allocations")
        return peak_of(lambda: self._call(self.seeds[0]))[1]

    def _call(self, seed: int) -> Any:
        """One call. Its noise comes from the CPU, so that it is the same on every device and under every plan."""
        takes = "generator" in signature(type(self.pipe).__call__).parameters or hasattr(self.pipe, "blocks")
        noise = {"generator": torch.Generator("cpu").manual_seed(seed)} if takes else {}
        with kept_rng():
            torch.manual_seed(seed)  # of every device, for what is drawn without the generator
            return self.pipe(**self.call, **noise)


@contextmanager
def kept_rng() -> Generator[None]:
    """The random numbers of the process, and of its accelerators, go on afterwards where they were."""
    with ExitStack() as ways_back:
        for kind in PEAKED:
            devices = range(getattr(torch, kind).device_count())
            ways_back.enter_context(torch.random.fork_rng(devices, device_type=kind))
        yield


def alike(some: Sequence[Value], others: Sequence[Value]) -> bool:
    """Whether two calls returned the same."""
    pairs = zip(some, others, strict=False)
    return len(some) == len(others) and all(a.place == b.place and same(a.data, b.data) for a, b in pairs)


@contextmanager
def told(failures: list[str]) -> Generator[None]:
    """What goes wrong inside is one sentence more in `failures`, and its memory is freed."""
    try:
        yield
    except Exception as error:
        failures.append(_sentence(error))
        let_go(error)


def _sentence(error: Exception) -> str:
    """An error of memplan in its words; another one with where it was raised."""
    if isinstance(error, MemplanError):
        return str(error)
    at = extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (raised in {at.name}, {at.filename}:{at.lineno})"


def _whole(plan: Plan) -> Figures:
    """The prediction of one warm call: the highest peaks, and the seconds of all phases."""
    return reduce(added, (figures for _, _, figures in of_plan(plan).phases))
