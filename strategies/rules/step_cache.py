"""What step caches share: results of earlier steps stand in for parts of later ones."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, ClassVar, Self

from memplan.facts import HALVED, PAIRED, ZEROED, CacheHooks, Call, Facts, Turn
from memplan.run import Aside, Cached, FromDisk, InGroups, OnHost, Partly, Run, Shortened
from memplan.strategy import Decision, Seat, Strategy

from .refusals import willing


@dataclass(frozen=True)
class Stepping:
    """A component under a cache: its hooks, its forwards in order, and one of them as it was traced."""

    hooks: CacheHooks
    turns: tuple[Turn, ...]
    call: Call

    @property
    def crowded(self) -> bool:
        """Whether one context, or none, has several forwards at one timestep, as guidance without contexts has."""
        times = Counter((turn.context, turn.timestep) for turn in self.turns if turn.timestep is not None)
        return any(count > 1 for count in times.values())

    @property
    def in_turn(self) -> bool:
        """Whether several forwards are made at one timestep, in whatever contexts."""
        times = Counter(turn.timestep for turn in self.turns if turn.timestep is not None)
        return len({turn.context for turn in self.turns}) > 1 or any(count > 1 for count in times.values())

    @property
    def untimed(self) -> bool:
        """Whether the pipeline does not say at which timestep it is."""
        return any(turn.timestep is None for turn in self.turns)


@dataclass(frozen=True)
class StepCache(Strategy):
    """A cache of diffusers in `component`. `config_class` is the library's config, `imports` what its settings need.

    `apart` is whether it asks for a context, and keeps what it keeps for each; `uncompiled` why it excludes compile.
    """

    component: str

    opt_in: ClassVar[str] = "it changes the picture, by how much is not predicted"
    config_class: ClassVar[str]
    imports: ClassVar[tuple[str, ...]] = ()
    apart: ClassVar[bool] = True
    uncompiled: ClassVar[str] = "a step cache counts its steps inside the forwards: each count would be compiled anew"

    @property
    def technique(self) -> str:
        """How facts name it."""
        return self.name

    @property
    def seats(self) -> frozenset[Seat]:
        """Which cache this component has: diffusers takes one."""
        return frozenset({Seat(Decision.CACHE, self.component)})

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """One for each denoiser that takes it."""
        candidates = (cls.suited(component.name, facts) for component in facts.model.components)
        yield from willing(candidates, facts)

    @classmethod
    def suited(cls, component: str, facts: Facts) -> Self:
        """The settings for one component of these facts."""
        return cls(component)

    # -- what is refused -----------------------------------------------------------------------------------------------
    def refuses(self, run: Run) -> str | None:
        """Refuses settings out of range, models and placements that it breaks with, and calls that it cannot follow."""
        component = run.facts.model.component(self.component)
        lack = component.lack("step_cache") or component.lack(self.technique)
        if self.invalid or lack:
            return self.invalid or lack
        if component.cache(self.technique) is None:
            return f"diffusers' {self.name} hooks nothing in {component.class_name}"
        found = self.stepping(run.facts)
        if found is None:
            return f"this call runs no forward of {self.component} that was followed"
        guided = run.variant(self.component) & {HALVED, PAIRED, ZEROED}
        if guided:
            return f"calls that are made {min(guided)} are not those that {self.name} counts its steps by"
        return self._placement(run) or self.unfit(found)

    @property
    def invalid(self) -> str | None:
        """The sentence about settings out of range."""
        return None

    def unfit(self, stepping: Stepping) -> str | None:
        """The sentence about a call in which it fails."""
        if self.apart and any(turn.context is None for turn in stepping.turns):
            return f"this pipeline names no context for its call of {self.component}, which {self.name} asks for"
        return None

    def _placement(self, run: Run) -> str | None:
        placement = run.placement(self.component)
        if isinstance(placement, Aside | OnHost):
            return f"{self.component} does nothing on the device"
        if isinstance(placement, Partly) or (isinstance(placement, InGroups) and placement.stream):
            return "weights are copied ahead in the order of a whole forward, and a step cache skips parts of it"
        if isinstance(placement, InGroups | FromDisk) and (placement.blocks or 1) > 1:
            return "a group of several blocks would stay on the device where a step cache skips the last of them"
        return None

    def stepping(self, facts: Facts) -> Stepping | None:
        """The component as this call runs it; None where it takes no such cache, or does not run."""
        hooks = facts.model.component(self.component).cache(self.technique)
        turns = tuple(turn for turn in facts.trace.turns if turn.component == self.component)
        calls = (call for call in facts.trace.calls if (call.component, call.method) == (self.component, "forward"))
        call = next(calls, None)
        return Stepping(hooks, turns, call) if hooks and turns and call else None

    # -- what it does --------------------------------------------------------------------------------------------------
    @abstractmethod
    def forwards(self, stepping: Stepping) -> Iterator[Shortened]:
        """Each forward under the cache, in order: what it skips and keeps, by the very rule of the library's hooks."""

    @property
    def idle(self) -> str:
        """The sentence for a call in which nothing is counted as skipped."""
        return f"{self.name} skips nothing in this call, with these settings"

    def assumes(self, facts: Facts) -> tuple[str, ...]:
        """That nothing is skipped, where it is so: time is saved by that alone."""
        found = self.stepping(facts)
        saves = found is None or any(one.skipped or one.halved for one in self.forwards(found))
        return () if saves else (f"{self.component}: {self.idle}",)

    def redraw(self, run: Run) -> Run:
        """Its forwards are shortened."""
        found = self.stepping(run.facts)
        shortened = tuple(self.forwards(found)) if found else ()
        return run.cache(self.component, Cached(shortened, (("compile", self.uncompiled),)))

    # -- the deed ------------------------------------------------------------------------------------------------------
    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings of the library's config, by its names for them."""

    def live(self, pipe: Any) -> dict[str, Any]:
        """Further settings of the config, which no literal stands for."""
        return {}

    @property
    def spelled(self) -> dict[str, str]:
        """The same as `live`, as code; `pipe` is the pipeline."""
        return {}

    def made(self, pipe: Any) -> Any:
        """The library's config for a live pipeline."""
        from diffusers import hooks

        return getattr(hooks, self.config_class)(**self.settings, **self.live(pipe))

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """One call of the library, a setting a line."""
        given = {name: repr(value) for name, value in self.settings.items()} | self.spelled
        lines = (line for name, text in given.items() for line in _lines(f"{name}={text},"))
        config = self.config_class
        body = (f"pipe.{self.component}.enable_cache(", f"    {config}(", *lines, "    )", ")")
        return (f"from diffusers.hooks import {config}", *self.imports, *body)


def _lines(setting: str) -> Iterator[str]:
    """A setting as lines that are not too long: numbers of a long table stand below each other."""
    yield from (f"        {line}" for line in wrap(setting, 100, subsequent_indent="    "))
