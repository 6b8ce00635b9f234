"""What is weighed of many plans in columns, so that thousands of them are foreseen at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from memplan.facts import Machine
from memplan.planner.front import Array
from memplan.planner.weighing import COARSE, MISFIT, Figures, comfortable
from memplan.simulator import Arriving, highest

Arrivals = Mapping[str, Arriving]
"""What components take of host memory before the call, by name, in the order in which they are placed."""


@dataclass(frozen=True, eq=False)
class Columns:
    """The fields are those of `Figures`, each with one number for each plan; of `phases` each is a row.

    `arriving` are numbers of `arrivals`.
    """

    phases: Array
    required: Array
    steady: Array
    beyond: Array
    arriving: Array
    host: Array
    pinned: Array
    effort: Array
    error: Array
    tiles: Array
    ways: Array
    rank: Array
    comfortable: Array
    turns: Array
    arrivals: tuple[Arrivals, ...]

    @classmethod
    def of(cls, plans: Sequence[Figures]) -> "Columns":
        """Those of these plans."""
        arrivals = {tuple(plan.arriving.items()): plan.arriving for plan in plans}
        numbers = {key: number for number, key in enumerate(arrivals)}
        columns = {one.name: np.array([getattr(plan, one.name) for plan in plans]) for one in fields(Figures)
                   if one.name not in ("phases", "arriving")}  # fmt: skip
        columns["phases"] = np.array([plan.phases for plan in plans]).T
        columns["arriving"] = np.array([numbers[tuple(plan.arriving.items())] for plan in plans], dtype=int)
        return cls(**columns, arrivals=tuple(arrivals.values()))

    def some(self, numbers: Sequence[int]) -> "Columns":
        """Those of some of the plans, by number."""
        columns = {one.name: getattr(self, one.name)[..., numbers] for one in fields(self) if one.name != "arrivals"}
        return Columns(**columns, arrivals=self.arrivals)


def foreseen(plans: Columns, options: Columns, base: Figures, emptied: Sequence[int], machine: Machine) -> Columns:
    """What each of `plans` is about to need with each of the `options` besides, if that alone changes `base` so.

    What components add to each phase, to seconds and to host memory between calls adds up, but for some 150 MiB by
    which the allocator's rounding differs, and for files that are read again where they do not stay in host memory
    together: those seconds are left out. Where components take turns in both, phases add to those of `base` with the
    allocator's cache `emptied`, which that does in each and once. Before the call components take host memory in the
    order of the model. Only what misses by more than COARSE is a misfit.
    """
    turning = np.logical_and.outer(plans.turns, options.turns).ravel()
    phases = _joined(plans, options, base, "phases")
    phases += turning * (np.array(base.phases) - np.array(emptied))[:, None]
    steady, pinned = _joined(plans, options, base, "steady"), _joined(plans, options, base, "pinned")
    beyond = np.maximum.outer(plans.beyond, options.beyond).ravel()
    required = phases.max(axis=0, initial=0)
    arriving, arrivals = _together(plans, options, base)
    before = 0 if machine.unified else np.array([highest(parts, base.arriving) for parts in arrivals])[arriving]
    host = np.maximum(steady + beyond, before)
    misfits = (required > machine.vram + COARSE) | (host > machine.ram + COARSE) | (pinned > machine.pinnable)
    return Columns(
        phases,
        required,
        steady,
        beyond,
        arriving,
        host,
        pinned,
        effort=_joined(plans, options, base, "effort"),
        error=_joined(plans, options, base, "error"),
        tiles=np.maximum.outer(plans.tiles, options.tiles).ravel(),
        ways=_joined(plans, options, base, "ways"),
        rank=np.where(misfits, MISFIT, 0),
        comfortable=comfortable(required - COARSE, host - COARSE, machine),
        turns=np.logical_or.outer(plans.turns, options.turns).ravel(),
        arrivals=arrivals,
    )


def _joined(plans: Columns, options: Columns, base: Figures, name: str) -> Array:
    """A column of which what both add to that of `base` adds up."""
    own, other, there = getattr(plans, name), getattr(options, name), np.array(getattr(base, name))
    every: Array = own[..., :, None] + other[..., None, :] - there[..., None, None]
    return every.reshape(*own.shape[:-1], -1)


def _together(plans: Columns, options: Columns, base: Figures) -> tuple[Array, tuple[Arrivals, ...]]:
    """Numbers of what components take before the call, and all that there is of it."""
    pairs = np.add.outer(plans.arriving * len(options.arrivals), options.arriving).ravel()
    every, arriving = np.unique(pairs, return_inverse=True)
    split = (divmod(int(pair), len(options.arrivals)) for pair in every)
    return arriving, tuple(_arriving(plans.arrivals[one], options.arrivals[other], base) for one, other in split)


def _arriving(plan: Arrivals, option: Arrivals, base: Figures) -> Arrivals:
    """What components take before the call, those that the option changes as it has them."""
    changed = {name: part for name, part in option.items() if part != base.arriving[name]}
    parts = {name: changed.get(name, plan[name]) for name in base.arriving}
    return {name: parts[name] for name in sorted(parts, key=lambda name: not parts[name].resident)}
