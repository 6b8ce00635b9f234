"""What PyTorch's caching allocator holds beside resident weights: activations, and what it keeps of earlier ones."""

from dataclasses import dataclass

from memplan.facts import Call, Step
from memplan.run import OnCall, Resident, Run
from memplan.simulator.weights import reserved, total


@dataclass(frozen=True)
class Held:
    """Bytes of the allocator's segments during a call: all, and those in use, which it can't give back."""

    reserved: int
    occupied: int


class Cache:
    """Follows the allocator through a run, step by step.

    It gives nothing back by itself, so that each call adds what it could not find among the freed blocks of those
    before it. Model offload empties the cache whenever a component leaves: there each call begins anew.
    """

    def __init__(self, run: Run) -> None:
        """Before the pipeline's call only weights are reserved."""
        components = run.facts.model.components
        self.calls = run.facts.trace.calls
        self.emptied = any(isinstance(run.placement(c.name), OnCall) for c in components)
        self.held = self.known = 0
        self.slack = sum(
            reserved(c, run.stored(c.name)) - total(c, run.stored(c.name))
            for c in components
            if isinstance(run.placement(c.name), Resident)
        )

    def after(self, step: Step, call: Call) -> Held:
        """What is held once `call` has run for `step`, resident weights aside."""
        if self.emptied:
            fixed = self.slack + call.base
            return Held(fixed + call.reserved_alone, fixed + call.occupied_alone)
        self.held += max(call.reserved - self.known, 0)
        self.known = max(self.known, self.calls[step.call].reserved)
        return Held(self.slack + self.held, self.slack + call.occupied)
