"""A plan, a recommendation, and what was dropped on the way."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from memplan.errors import BadInput
from memplan.facts import Facts
from memplan.facts.units import amount
from memplan.planner import notebook, page
from memplan.planner.label import label
from memplan.planner.saved import FACE, Saved
from memplan.planner.shortage import Shortage, shortages
from memplan.run import OnHost, Run
from memplan.simulator import Bill
from memplan.strategy import Strategy

WAITING = ("bnb int8",)
"""Formats whose layers make the device wait for the host."""
PREFERENCES = ("quality", "speed", "memory", "balanced")


@dataclass(frozen=True, repr=False)
class Plan:
    """Strategies that go together, the run they draw and its price. `reason` says in a sentence why it is offered."""

    strategies: tuple[Strategy, ...]
    run: Run
    bill: Bill
    reason: str = ""

    @property
    def margin(self) -> int:
        """Bytes of device memory left over; negative when it does not fit."""
        return self.run.facts.machine.vram - self.bill.peak.memory.required

    @property
    def host_margin(self) -> int:
        """Bytes of host memory left over; negative when it does not fit. A unified device takes its memory from it."""
        machine = self.run.facts.machine
        shared = self.bill.peak.memory.required if machine.unified else 0
        return machine.ram - self.bill.host.peak - shared

    @property
    def pin_margin(self) -> int:
        """Bytes of host memory that could be pinned besides; negative when the plan pins more than it may."""
        return self.run.facts.machine.pinnable - self.bill.host.pinned

    @property
    def spare(self) -> int:
        """The least of its margins."""
        return min(self.margin, self.host_margin, self.pin_margin)

    @property
    def fits(self) -> bool:
        """Whether device and host memory suffice, and nothing exceeds what the user allows."""
        return not self.shortages

    @cached_property
    def shortages(self) -> tuple[Shortage, ...]:
        """What it needs more of than there is or than is allowed; () when it fits."""
        return shortages(self.run, self.bill)

    @property
    def nearness(self) -> tuple[float, float]:
        """What orders plans by how near they are to fitting: memory first, then how often it takes what is allowed."""
        others = [short.needed / max(short.there, 1) for short in self.shortages if short.of in ("seconds", "loss")]
        return min(self.spare, 0) if others else self.spare, -max(others, default=0.0)

    @property
    def effort(self) -> float:
        """What orders plans by speed: predicted seconds of one call."""
        return self.bill.seconds

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What had to be assumed for this plan beside what holds for every one, in sentences."""
        own = (sentence for strategy in self.strategies for sentence in strategy.assumes(self.run.facts))
        return (*self._on_host(), *self._waiting(), *self._compiled(), *self._cached(), *own, *self._read_again())

    def _on_host(self) -> tuple[str, ...]:
        there = [name for name, placement in self.run.placements.items() if isinstance(placement, OnHost)]
        kernels = "activations on the CPU are counted as the device's kernels hold them"
        return (f"{', '.join(there)}: {kernels}; the CPU's were not followed",) if there else ()

    def _waiting(self) -> tuple[str, ...]:
        names = ", ".join(name for name, stored in self.run.storage.items() if stored.format in WAITING)
        spent = "layers look for outliers and wait for what is found, which takes time that is not predicted"
        return (f"{names}: {spent}",) if names else ()

    def _compiled(self) -> tuple[str, ...]:
        names = ", ".join(self.run.compiled)
        if self.run.facts.training:
            return self._compiled_steps(names)
        held = "compiled code holds no more than the same code uncompiled, by whose activations it is counted"
        fused = "what follows directly between two products is one kernel, and products are no faster than without"
        return (f"{names}: {held}", f"{names}: {fused}") if names else ()

    def _compiled_steps(self, names: str) -> tuple[str, ...]:
        held = "a compiled step holds no more than uncompiled, by which it is counted, and beside gradients that are"
        both = "there already those of one compiled module"
        slower = "its seconds are those uncompiled, of which some are saved, and those of compiling are left out"
        return (f"{names}: {held} {both}", f"{names}: {slower}") if names else ()

    def _cached(self) -> tuple[str, ...]:
        names = ", ".join(self.run.caches)
        changes = "a step cache reuses results of earlier steps, which changes the output; loss not predicted"
        own = "what its hooks compute themselves, to compare, add or extrapolate, is not counted"
        return (f"{names}: {changes}", f"{names}: {own}") if names else ()

    def _read_again(self) -> tuple[str, ...]:
        read, ram = self.bill.read_again, self.run.facts.machine.ram
        why = f"the {amount(ram)} of host memory that plans may use have no room to keep them"
        return (f"{amount(read)} of files are read from the disk again in each call: {why}",) if read else ()

    def save(self, path: str | Path, call: Mapping[str, Any] = MappingProxyType({})) -> Path:
        """Write it into a file, for a call with these arguments; the value is the file. Raises BadInput."""
        return import_module(FACE).save(self, path, call)

    def to_html(self, path: str | Path | None = None, call: Mapping[str, Any] = MappingProxyType({})) -> str:
        """Its bill and its timeline as a page that needs no network; written to `path`, too, where one is given.

        `call` has the values of arguments that reports shorten. Raises BadInput for what is no call of a pipeline.
        """
        return page.of_plan(self, path, call)

    @staticmethod
    def load(path: str | Path) -> Saved:
        """The plan in a file of save(), or of memplan recommend --save. Raises BadInput for what is no such file."""
        return import_module(FACE).load(path)

    def __str__(self) -> str:
        """The plan as people type it."""
        return label(self.strategies, self.run.facts)

    def __repr__(self) -> str:
        """The plan, its totals, and whether it fits."""
        return f"<Plan {self}: {self.bill.totals}{'' if self.fits else ', does not fit'}>"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        return notebook.plan(self)


@dataclass(frozen=True)
class Dropped:
    """A variant or plan that was weighed and left out, and why."""

    what: str
    reason: str


@dataclass(frozen=True, repr=False)
class Recommendation:
    """The answer: the front, fastest first, the picks by preference, and what was dropped.

    When nothing fits, `picks` is empty and `front` starts with the plan that misses the least.
    """

    facts: Facts
    front: tuple[Plan, ...]
    picks: tuple[tuple[str, Plan], ...]
    dropped: tuple[Dropped, ...] = ()

    def __repr__(self) -> str:
        """The picks, or where nothing fits the plan that misses the least, a line each."""
        nearest = (("nearest", self.nearest),) if self.front else ()
        plans = [f"  {name:<8}  {plan!r}" for name, plan in self.picks or nearest]
        return "\n".join([f"<Recommendation for {self.facts.subject}: {len(self.front):,} plans", *plans]) + "\n>"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        return notebook.recommendation(self)

    def pick(self, preference: str) -> Plan | None:
        """The pick for "quality", "speed", "memory" or "balanced"; None when nothing fits. Others raise BadInput."""
        check_preference(preference)
        return dict(self.picks).get(preference)

    def to_html(
        self,
        path: str | Path | None = None,
        prefer: str = "balanced",
        call: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """The report as a page that needs no network, the pick of `prefer` first; it is written to `path`, too.

        `call` has the values of arguments that reports shorten. Raises BadInput for what is no call of a pipeline.
        """
        check_preference(prefer)
        return page.of_recommendation(self, path, prefer, call)

    @property
    def nearest(self) -> Plan:
        """The plan that misses the machine, or what is allowed, by the least."""
        return max(self.front, key=lambda p: p.nearness)


def check_preference(name: str) -> None:
    """Raises BadInput for a name that is no preference."""
    if name not in PREFERENCES:
        raise BadInput(f"unknown preference {name!r}: use one of {', '.join(PREFERENCES)}")
