"""The contract of a strategy, on one screen. A strategy says what changes, never what it costs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import lru_cache
from typing import Any, ClassVar, Self
from urllib.parse import quote

from memplan.errors import BadInput
from memplan.facts import Component, Facts, Purpose
from memplan.run import Run

Undo = Callable[[], None]
Switch = Callable[[Any], Undo]
"""Has a component called in another way; the value undoes it."""


STREAMED = "_memplan_slots"
"""The attribute by which a component holds the slots that parts of it are streamed through."""
AT_THE_DOOR = "_memplan_guidance"
"""The attribute by which a component holds the name of what stands before its forward."""


class Decision(StrEnum):
    """What a strategy decides about a component. The order is the order in which plans are applied."""

    FORMAT = "format"
    TILES = "tiles"
    FRAMES = "frames"
    SLICES = "slices"
    ATTENTION = "attention"
    LAYOUT = "layout"
    GUIDANCE = "guidance"
    CHECKPOINTS = "checkpoints"
    PLACEMENT = "placement"
    CACHE = "step cache"
    COMPILATION = "compilation"
    REUSE = "reuse"


@dataclass(frozen=True, order=True)
class Seat:
    """One decision about one component. Two strategies that want the same seat exclude each other."""

    decision: Decision
    component: str


@dataclass(frozen=True)
class Config:
    """What a library's loader takes to load a component in a format: the code of that object, and its imports.

    With one that is `on_device` the loader leaves the component on the device.
    """

    imports: tuple[str, ...]
    value: str
    on_device: bool = False


SEPARATOR = "/"
"""Stands between the parts of a setting that has several, as in "spare=wo/proj_out"."""


def written(value: Any, special: str = "%,") -> str:
    """A setting as people type it: "true", "3", "none", text, or several of them.

    What has a meaning in a plan is escaped as in a URL: "%2C" for a comma, "%20" for a space.
    """
    if isinstance(value, tuple):
        return SEPARATOR.join(written(part, special + SEPARATOR) for part in value)
    if isinstance(value, str):
        return "".join(quote(c, safe="") if c in special or c.isspace() else c for c in value)
    return str(value).lower() if isinstance(value, bool | None) else str(value)


class Strategy(ABC):
    """One technique with its settings. Subclasses are frozen dataclasses; their docstring is their help text.

    The first line of the docstring is the technique in a sentence; the rest says when it helps and what it costs.
    `name` is how people type it. A technique without an exact inverse says in `irreversible` how to get back; settings
    may keep what the inverse needs, so that `final` is that sentence, or None. `beaten_by` names a technique that needs
    no more of anything, and where there is one, this is left to those who ask for it. One that is a `last_resort` is
    searched only where nothing fits without it, and may always be named. `opt_in` says why it is left to those who ask.
    `known_as` are words of others for it, for those who type them.
    What `frees_host` memory is applied before what decides the same and may take some. What is `midway` can also be
    applied between two calls of components in the middle of a pipeline's call, and leaves what they compute comparable.
    It is for its `purpose`, and for what it is `also_for`; for nothing else.
    """

    name: ClassVar[str]
    irreversible: ClassVar[str | None] = None
    beaten_by: ClassVar[str] = ""
    last_resort: ClassVar[bool] = False
    frees_host: ClassVar[bool] = False
    midway: ClassVar[bool] = False
    purpose: ClassVar[Purpose] = Purpose.CALLS
    also_for: ClassVar[tuple[Purpose, ...]] = ()
    opt_in: ClassVar[str] = ""
    known_as: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def seats(self) -> frozenset[Seat]:
        """What it decides, and of which components."""

    @classmethod
    @abstractmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        """Every setting worth weighing for these facts; none where the technique does not apply."""

    @classmethod
    def takes(cls, facts: Facts) -> tuple[str, ...]:
        """The components of a technique for several, where nobody names them: all of the pipeline."""
        return tuple(part.name for part in facts.model.components)

    @classmethod
    def measured(cls, component: Component) -> Mapping[str, Any]:
        """The settings that `component` decides where nobody gives them."""
        return {}

    @classmethod
    def switches(cls, settings: Mapping[str, Any]) -> Mapping[str, Switch]:
        """The ways to call components that a dry run follows only for those who ask for these `settings`, by name."""
        return {}

    def finer(self, facts: Facts) -> Sequence[Self]:
        """The same technique for more memory, in steps: each loses less than the last, or fewer bytes move."""
        return ()

    @classmethod
    def needed(cls) -> str:
        """What it needs beside the libraries that memplan needs itself, in words; "" for nothing."""
        return ""

    @property
    def final(self) -> str | None:
        """How to get back what undo() does not, or None where it brings back everything."""
        return self.irreversible

    def __str__(self) -> str:
        """As people type it: name, component and every setting that is not the default, but not all components."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}  # type: ignore[arg-type]
        return self.typed({name: value for name, value in given.items() if name != "components"})

    def typed(self, settings: Mapping[str, Any]) -> str:
        """As people type it with these settings, the component among them."""
        words = (written(v) if name == "component" else f"{name}={written(v)}" for name, v in settings.items())
        return ":".join(filter(None, (self.name, ",".join(words))))

    @classmethod
    def serves(cls, purpose: Purpose) -> bool:
        """Whether it is for this purpose."""
        return purpose in (cls.purpose, *cls.also_for)

    @classmethod
    def misplaced(cls, facts: Facts) -> str | None:
        """The sentence for a technique that is for another purpose than what is planned, or None."""
        if cls.serves(facts.purpose):
            return None
        how = f": {cls.purpose.asked}" if cls.purpose.asked else ""
        return f"{cls.name} is for {cls.purpose}, and this is {facts.purpose.one}{how}"

    def refuses(self, run: Run) -> str | None:
        """One sentence that says why it can't join this run, or None when it can."""
        return None

    def assumes(self, facts: Facts) -> tuple[str, ...]:
        """What its figures for these facts assume, in sentences that a report shows with the plan."""
        return ()

    @abstractmethod
    def redraw(self, run: Run) -> Run:
        """The run with this technique in it. Pure."""

    @abstractmethod
    def apply(self, pipe: Any, device: str) -> Undo:
        """Make it real on a live pipeline; the value undoes it. An irreversible one undoes nothing."""

    @abstractmethod
    def code(self, device: str = "cuda") -> tuple[str, ...]:
        """The lines a user would write to the same effect, imports first, the pipeline being `pipe`."""

    def config(self, component: Component) -> Config | None:
        """What has `component` loaded to the same effect, so that `code` is not needed; None where nothing does."""
        return None


def in_order(strategies: Iterable[Strategy]) -> tuple[Strategy, ...]:
    """The strategies in the order in which they are drawn and applied. Raises BadInput where two want one seat."""
    ordered = sorted(strategies, key=_turn)
    taken: dict[Seat, Strategy] = {}
    for strategy in ordered:
        for seat in sorted(strategy.seats):
            other = taken.setdefault(seat, strategy)
            if other is not strategy:
                raise BadInput(f"{other} and {strategy} both decide the {seat.decision} of {seat.component}: keep one")
    return tuple(ordered)


@lru_cache(maxsize=4096)
def _turn(strategy: Strategy) -> tuple[int, bool, str]:
    return min(_ORDER.index(seat.decision) for seat in strategy.seats), not strategy.frees_host, str(strategy)


_ORDER = tuple(Decision)
