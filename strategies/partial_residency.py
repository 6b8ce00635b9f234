"""Only as much of a component is streamed as must be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

from memplan.errors import BadInput
from memplan.facts import TEXT_ENCODING, Component, Facts, Grouping
from memplan.run import SPLIT, Partly, Run
from memplan.strategy import Decision, Seat, Strategy, Undo

from .rules.refusals import check_free, frees_nothing, stuck, willing
from .rules.turns import no_turns
from .streaming.choice import LARGE, best, called_apart, expert, worthwhile
from .streaming.copiers import Copier
from .streaming.partly import chosen, place

KINDS = ("cuda", "rocm", "cpu")
"""Kinds of device that it runs on: those with streams and pinned memory as CUDA has them; the CPU for trials."""
LEVELS = ("block_level", "leaf_level")
STEPS = 4
"""How many counts of streamed groups are searched; the best is refined to single groups."""


@dataclass(frozen=True)
class PartialResidency(Strategy):
    """Most of a component stays on the device, and `streamed` of its blocks come from host memory while others compute.

    Exact. Use as few streamed blocks as fit: each saves its own size of device memory, and two slots of the size of the
    largest take some. The streamed ones are spread evenly, so that a copy has the time of the blocks between to hide
    in; where it does the speed is that of everything on the GPU. Streaming all of them still needs half the traffic of
    group_offload without a stream, and no round trips of what lies outside the blocks.

    It costs the streamed blocks' size in pinned host memory, to the page, and a copy of them on every forward.
    `level` "leaf_level" streams single layers, for models whose blocks are few and large, such as U-Nets; groups that
    are far smaller or larger than the mean stay. `modules` names modules inside which blocks are looked for, such as
    "encoder" of T5. With `on_demand` what is not streamed is dropped when another component is called, and comes again
    when this one is: of two experts that take turns each has the device to itself, for a copy per turn.

    Traps: moving the component afterwards is refused, as it is in two places; a LoRA may be loaded before or after, and
    what is loaded after stays on the device; diffusers has no call for it, so the code needs memplan.
    """

    component: str
    streamed: int
    level: str = LEVELS[0]
    modules: str = ""
    on_demand: bool = False

    name: ClassVar[str] = "partial_residency"

    @property
    def seats(self) -> frozenset[Seat]:
        """Where this component lives."""
        return frozenset({Seat(Decision.PLACEMENT, self.component)})

    @property
    def placement(self) -> Partly:
        """How the run has it."""
        return Partly(self.level, self.streamed, self.modules, self.on_demand)

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """A few counts for each large component that is called as a whole, at the level that has enough groups.

        For text encoders, which run once, all groups; the planner tries fewer of what it picks. On demand only where
        several others are large too.
        """
        experts = len([part for part in facts.model.components if expert(part, facts)])
        called = {call.component for call in facts.trace.calls if call.method == "forward"}
        for component in facts.model.components:
            grouping = best(component)
            if component.name in called and grouping and component.size >= LARGE * facts.model.size:
                number, once = (
                    len(worthwhile(component, grouping)),
                    facts.trace.phases(component.name) == frozenset({TEXT_ENCODING}),
                )
                counts = dict.fromkeys(-(-number * step // STEPS) for step in range(STEPS if once else 1, STEPS + 1))
                made = [cls(component.name, count, grouping.level, grouping.modules) for count in counts if count]
                yield from willing(made, facts)
                if experts > 1 and expert(component, facts):
                    yield from willing((replace(one, on_demand=True) for one in made), facts)

    def finer(self, facts: Facts) -> Sequence[Self]:
        """Fewer streamed groups, down to one."""
        return [replace(self, streamed=count) for count in range(self.streamed - 1, 0, -1)]

    def refuses(self, run: Run) -> str | None:
        """Refuses what cannot be streamed so, devices without streams, and settings that name no groups."""
        component, gpu = run.facts.model.component(self.component), run.facts.machine.gpu
        grouping = component.grouping(self.level, self.placement.blocks, self.modules)
        if self.level not in LEVELS or grouping is None:
            return f"{component.class_name} has no groups of level {self.level}{self._inside}"
        number = len(worthwhile(component, grouping))
        if not 1 <= self.streamed <= number:
            return (
                f"streamed is from 1 to {number}, which {component.class_name} has at {self.level}, not {self.streamed}"
            )
        if gpu is None or gpu.kind not in KINDS:
            return f"{self.name} needs a CUDA or ROCm device, and this machine has {gpu.kind if gpu else 'none'}"
        return frees_nothing(run) or self._lack(run, component, grouping) or self._stays(run)

    @property
    def _inside(self) -> str:
        return f" inside {self.modules}" if self.modules else ""

    def _lack(self, run: Run, component: Component, grouping: Grouping) -> str | None:
        """The sentence about a component or a format that breaks."""
        level = None if self.modules else run.lack(self.component, self.level)
        kept = run.stored(self.component).format in SPLIT  # whose scales stay on the device
        broken = None if kept else run.lack(self.component, "group_offload") or run.lack(self.component, "stream")
        methods = {call.method for call in run.facts.trace.calls if call.component == self.component}
        if methods and methods != {"forward"}:
            return f"{self.component} is called as {' and '.join(sorted(methods))}(), and the slots come with forward()"
        return (
            broken or level or stuck(run, component, self.level) or called_apart(run.facts.trace, component, grouping)
        )

    def _stays(self, run: Run) -> str | None:
        """The sentence about a component whose resident part should come and go, and cannot."""
        if not self.on_demand:
            return None
        if run.stored(self.component).format in SPLIT:
            return f"the scales of {self.component} in 4 bits stay on the device: leave out on_demand"
        return run.lack(self.component, "model_offload") or no_turns(run, self.component)

    def redraw(self, run: Run) -> Run:
        """The component is on the device in part."""
        return run.place(self.component, self.placement)

    def apply(self, pipe: Any, device: str, copier: Copier | None = None) -> Undo:
        """Packs what is streamed, brings the rest to the device, and hooks the component; `copier` is for trials.

        Raises BadInput for a component that is offloaded already, or has no groups.
        """
        part = getattr(pipe, self.component)
        check_free(self.component, part)
        picked = chosen(part, self.level, tuple(filter(None, self.modules.split("+"))), self.streamed)
        if not picked:
            raise BadInput(f"{self.component} has no groups of level {self.level}{self._inside}")
        if not self.on_demand:
            return place(self.component, part, picked, device, copier)
        from .live.visitors import lend, modules_of

        lending = partial(lend, self.component, modules_of(pipe), device)
        return place(self.component, part, picked, device, copier, lending=lending)

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """memplan's own call, as diffusers has none."""
        settings = [f'"{self.component}"', str(self.streamed)]
        settings += [f'level="{self.level}"'] if self.level != LEVELS[0] else []
        settings += [f'modules="{self.modules}"'] if self.modules else []
        settings += ["on_demand=True"] if self.on_demand else []
        return (
            "from memplan.strategies import PartialResidency",
            f'PartialResidency({", ".join(settings)}).apply(pipe, "{device}")',
        )
