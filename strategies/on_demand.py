"""A component comes to the device when it is called, and its weights stay at home as well."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from memplan.facts import Facts
from memplan.run import OnDemand as OnDemandPlacement
from memplan.run import Run
from memplan.strategy import Decision, Seat, Strategy, Undo

from .live.way_back import attributes, done
from .rules.refusals import check_free, frees_nothing, willing
from .rules.turns import no_turns


@dataclass(frozen=True)
class OnDemand(Strategy):
    """A component comes whole to the device when it is called, and is dropped there when another one is called.

    Exact. Like model offload it puts components on the device one after the other, but for single ones, beside others
    that stay or come in groups, and nothing is copied back: the weights are at home all the time. Weights that
    are mapped from their files stay there and take no host memory: a text encoder is read, used and dropped, and a
    denoiser comes after it, in a host that could not hold both. Where host memory cannot cache the files either,
    each call of the pipeline reads them from the disk.

    It costs a copy of the component for each call of the pipeline, however many steps that has; one that is called by
    turns with others comes each time.

    Traps: weights that are changed on the device, as fuse_lora() does, go home as ordinary memory; to know them each
    weight is read once on the device when it has come and once before it leaves; pipe.to("cuda") fetches everything,
    so move the other components one by one; enable_model_cpu_offload() takes these hooks away.
    """

    component: str

    name: ClassVar[str] = "on_demand"
    midway: ClassVar[bool] = True

    @property
    def seats(self) -> frozenset[Seat]:
        """Where this component lives."""
        return frozenset({Seat(Decision.PLACEMENT, self.component)})

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each component that is called."""
        called = dict.fromkeys(call.component for call in facts.trace.calls if call.component)
        yield from willing((cls(name) for name in called), facts)

    def refuses(self, run: Run) -> str | None:
        """Refuses what cannot be moved as a whole, and what would leave the pipeline without a device to find."""
        component = run.facts.model.component(self.component)
        lack = run.lack(self.component, "model_offload") or run.lack(self.component, self.name)
        if frees_nothing(run) or lack or component.lack("own_weights"):
            return frees_nothing(run) or lack or component.lack("own_weights")
        if not component.weights:
            return f"{self.component} has no weights of its own to bring"
        return no_turns(run, self.component)

    def redraw(self, run: Run) -> Run:
        """The component comes when it is called."""
        return run.place(self.component, OnDemandPlacement())

    def apply(self, pipe: Any, device: str) -> Undo:
        """Hooks the component, which comes at once. Raises BadInput for one that is offloaded already."""
        from .live.visitors import lend, modules_of

        parts = modules_of(pipe)
        part, ends = parts[self.component], list[Undo]()
        check_free(self.component, part)
        before = attributes(part, "forward", "_hf_hook", "_old_forward")

        def undo() -> None:
            for end in ends:
                end()
            before()

        return done(lambda: ends.append(lend(self.component, parts, device)), undo)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """A call of memplan's own, as no library has one."""
        return ("from memplan.strategies import OnDemand", f'OnDemand("{self.component}").apply(pipe, "{device}")')
