"""Whole components that take turns on the device, call by call: which are there while each is called."""

from collections.abc import Iterable
from typing import Self

from memplan.facts import Model, Trace
from memplan.run import OnCall, Run, by_turns

DOORS = ("forward", "encode", "decode")
"""Methods of components at which they are noticed when they are called."""


class Chain:
    """Who comes and who leaves: by the chain that `enable_model_cpu_offload` installs, and on demand.

    In the chain a called component sends back the one before it, and only that one, before it comes itself; components
    outside the chain stay once they were called, and some never leave. Sources: `CpuOffload` in accelerate/hooks.py,
    `enable_model_cpu_offload` in diffusers/pipelines/pipeline_utils.py.

    A component on demand, or what of one is not streamed, is dropped when any other one is called, and nothing goes
    back. The last one is still there when the next call of the pipeline begins.
    """

    def __init__(self, model: Model, trace: Trace, managed: Iterable[str], on_demand: Iterable[str]) -> None:
        """Before the call everything is in host memory, but for what an earlier one left there on demand.

        Those `managed` are in the chain.
        """
        self.managed, self.on_demand = frozenset(managed), frozenset(on_demand)
        order = [name for name in dict.fromkeys(model.offload_order) if name in self.managed]
        self.before = dict(zip(order[1:], order, strict=False))
        self.here = self._left(trace) if self.on_demand else set[str]()
        self.arrivals: list[str] = []
        self.departures: list[str] = []

    @classmethod
    def of(cls, run: Run) -> Self:
        """That of a run."""
        parts = run.parts.values()
        managed = [part.name for part in parts if isinstance(part.placement, OnCall)]
        on_demand = [part.name for part in parts if by_turns(part.placement)]
        return cls(run.facts.model, run.facts.trace, managed, on_demand)

    def _left(self, trace: Trace) -> set[str]:
        """What one call of the pipeline leaves on the device."""
        here: set[str] = set()
        for step in trace.timeline:
            call = trace.calls[step.call]
            here = self._noticed(call.component, call.method, here)
        return here

    def _noticed(self, name: str, method: str, here: set[str]) -> set[str]:
        """What of `here` stays when component `name` is called, and itself if it comes on demand."""
        stay = here & self.managed if name and method in DOORS else here
        return stay | (self.on_demand & {name})

    @property
    def lent(self) -> frozenset[str]:
        """The components here by the chain, which host memory does not hold meanwhile."""
        return self.managed & self.here

    def call(self, name: str, method: str = "forward") -> tuple[list[str], list[str]]:
        """`name` is called: others go, then it comes. The value is who came and who went back."""
        came, left, here = len(self.arrivals), len(self.departures), self.here
        self.here = self._noticed(name, method, here)
        self.arrivals += sorted(self.here - here)
        self._chain(name)
        return self.arrivals[came:], self.departures[left:]

    def _chain(self, name: str) -> None:
        if name not in self.managed:
            return
        previous = self.before.get(name)
        if previous is not None and previous in self.here:
            self.here.remove(previous)
            self.departures.append(previous)
        if name not in self.here:
            self.here.add(name)
            self.arrivals.append(name)

    def finish(self) -> list[str]:
        """The pipeline call is over: what came by the chain goes back. The value is who leaves."""
        gone = sorted(self.lent)
        self.here -= self.managed
        self.departures.extend(gone)
        return gone
