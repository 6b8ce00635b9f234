"""A component that this call does not use stays off the device."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.facts import Facts
from memplan.run import Aside, Run
from memplan.strategy import Decision, Seat, Strategy, Undo

from .live.way_back import done, homes
from .rules.refusals import check_free, frees_nothing, willing


@dataclass(frozen=True)
class SetAside(Strategy):
    """A component that this call does not use stays in host memory, while the others are on the device.

    It frees the whole size of the component, costs nothing and loses nothing: an image encoder of a call without a
    picture, a text encoder of a call that is given its embeddings. The component is left as it was loaded. Its size is
    counted as host memory; weights that are mapped from their files and were never moved take none.

    Traps: a call that does use it fails, as its weights are not where its inputs are: undo first, or plan for that
    call. pipe.to("cuda") fetches it again; move the components one by one.
    """

    component: str

    name: ClassVar[str] = "set_aside"

    @property
    def seats(self) -> frozenset[Seat]:
        """Where this component lives."""
        return frozenset({Seat(Decision.PLACEMENT, self.component)})

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each component that the call does not use."""
        yield from willing((cls(component.name) for component in facts.model.components), facts)

    def refuses(self, run: Run) -> str | None:
        """Refuses components that are called or share weights, and what says where the pipeline runs.

        Also devices on which it frees nothing.
        """
        component, trace = run.facts.model.component(self.component), run.facts.trace
        if self.component in trace.reached or any(call.component == self.component for call in trace.calls):
            return f"this call uses {self.component}, so it has to be on the device"
        lack = component.lack("call") or run.lack(self.component, self.name)
        if lack:
            return lack
        if not component.weights:
            return f"{self.component} has no weights of its own to set aside"
        return frees_nothing(run) or component.lack("own_weights")

    def redraw(self, run: Run) -> Run:
        """The component is nowhere on the device."""
        return run.place(self.component, Aside())

    def apply(self, pipe: Any, device: str) -> Undo:
        """Moves it to the CPU, where it may be already. Raises BadInput for one that is offloaded already."""
        part = getattr(pipe, self.component)
        check_free(self.component, part)
        return done(lambda: part.to("cpu"), homes(part))

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One line."""
        return (f'pipe.{self.component}.to("cpu")',)
