"""A strategy of your own, built on memplan's, and priced.

To install it, name it in the pyproject.toml of your package; `memplan recommend` then weighs it beside the others:

    [project.entry-points."memplan.strategies"]
    everything_in_groups = "your_package:EverythingInGroups"
"""

# ruff: noqa: D102 - memplan/strategy.py says what each method is

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import memplan
from memplan.facts import GIB, Facts
from memplan.run import Run
from memplan.strategies import GroupOffload
from memplan.strategy import Seat, Strategy, Undo


@dataclass(frozen=True)
class EverythingInGroups(Strategy):
    """Each layer of each component is on the device only while it runs."""

    components: tuple[str, ...]
    name: ClassVar[str] = "everything_in_groups"

    @property
    def parts(self) -> list[GroupOffload]:
        """What is done to each component."""
        return [GroupOffload(component) for component in self.components]

    @property
    def seats(self) -> frozenset[Seat]:
        return frozenset(seat for part in self.parts for seat in part.seats)

    @classmethod
    def variants(cls, facts: Facts) -> Iterator[Self]:
        yield cls(tuple(component.name for component in facts.model.components))

    def refuses(self, run: Run) -> str | None:
        return next(filter(None, (part.refuses(run) for part in self.parts)), None)

    def redraw(self, run: Run) -> Run:
        for part in self.parts:
            run = part.redraw(run)
        return run

    def apply(self, pipe: Any, device: str) -> Undo:
        with ExitStack() as undos:  # if one fails, those before it are undone
            for part in self.parts:
                undos.callback(part.apply(pipe, device))
            return undos.pop_all().close

    def code(self, device: str = "cuda") -> tuple[str, ...]:
        return ("import torch", f'pipe.enable_group_offload(torch.device("{device}"), offload_type="leaf_level")')


def main() -> None:
    """Price SD 1.5 with it and without."""
    target = memplan.Target(gpu="RTX 4070", ram=32)
    everything = memplan.price("sd1.5", [], target=target)
    (strategy,) = EverythingInGroups.variants(everything.run.facts)
    for text, plan in (
        ("everything on the device", everything),
        (strategy.name, memplan.price("sd1.5", [strategy], target=target)),
    ):
        peak, copied = plan.bill.peak.memory.allocated / GIB, plan.bill.traffic.link / GIB
        print(f"{text:<25} {peak:5.2f} GiB at most, {copied:6.1f} GiB copied")
    print(*strategy.code(), sep="\n")


if __name__ == "__main__":
    main()
