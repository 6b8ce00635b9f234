"""Ways to fill seats, at their price, and those that no other beats; what is foreseen to be beaten is never priced."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from memplan.planner.columns import Columns
from memplan.planner.front import Array, Front
from memplan.planner.front import unbeaten as front
from memplan.planner.plan import Plan
from memplan.planner.weighing import FINE, INSTANT, Figures, figures
from memplan.strategy import Strategy

Way = tuple[Strategy, ...]
"""What is decided about one or several components."""


@dataclass(frozen=True)
class Scale:
    """How much less of something counts as less: bytes of memory, a share of the seconds, an error of weights."""

    memory: int
    effort: float = 0.05
    loss: float = 0.002

    def times(self, factor: int) -> "Scale":
        """Differences so many times as large."""
        return Scale(factor * self.memory, factor * self.effort, self.loss)


Price = Callable[[Figures | Columns, Scale], Sequence[float | Array]]
"""What is weighed, in units of a scale: numbers for one plan, columns for many."""


def price_of(plan: Figures | Columns, scale: Scale) -> Sequence[float | Array]:
    """What the front weighs, in units of its scale: device and host memory, seconds, loss, tiles, other calls and fit.

    Tiles and how well a plan fits count double, so that a small difference of memory matters where they differ.
    """
    return *_weighed(plan, scale), 2 * plan.rank, 2 - 2 * plan.comfortable


def share_of(plan: Figures | Columns, scale: Scale) -> Sequence[float | Array]:
    """All that an option of one component adds to a plan: memory in each phase, and the rest of its price."""
    phases = (required / scale.memory for required in plan.phases)
    return *phases, plan.steady / scale.memory, *_weighed(plan, scale)


def pinning_share_of(plan: Figures | Columns, scale: Scale) -> Sequence[float | Array]:
    """The same where pinning is limited: what it pins is a part of it."""
    return *share_of(plan, scale), plan.pinned / FINE


def _weighed(plan: Figures | Columns, scale: Scale) -> Sequence[float | Array]:
    """Device memory, host memory, seconds, loss, tiles and the number of other ways in which components are called."""
    return (
        plan.required / scale.memory,
        plan.host / scale.memory,
        np.log(np.maximum(plan.effort, INSTANT)) / scale.effort,
        plan.error / scale.loss,
        2 * plan.tiles,
        plan.ways,
    )


class Offers:
    """Ways to fill seats. What each needs is foreseen; a plan is priced when that does not settle it."""

    def __init__(
        self, ways: Sequence[Way], touched: Array, foreseen: Columns, seat: Callable[[Way], Plan | None]
    ) -> None:
        """`touched` counts the components that each changes; `seat` makes a plan, or None where one refuses."""
        self.ways, self.touched, self.foreseen, self._seat = ways, touched, foreseen, seat
        self._plans: dict[int, tuple[Plan, Figures] | None] = {}

    @classmethod
    def of(cls, ways: Sequence[Way], touched: Sequence[int], plans: Sequence[Plan]) -> "Offers":
        """Ways of which the plans are known."""
        known = [(plan, figures(plan)) for plan in plans]
        offers = cls(ways, np.array(touched, dtype=int), Columns.of([own for _, own in known]), lambda _: None)
        offers._plans.update(enumerate(known))
        return offers

    def __len__(self) -> int:
        """How many they are."""
        return len(self.ways)

    def some(self, numbers: Sequence[int]) -> "Offers":
        """Those of these numbers, with the plans that are known of them."""
        chosen = Offers([self.ways[n] for n in numbers], self.touched[numbers], self.foreseen.some(numbers), self._seat)
        chosen._plans = {at: self._plans[n] for at, n in enumerate(numbers) if n in self._plans}
        return chosen

    def join(self, options: "Offers", about: Columns, seat: Callable[[Way], Plan | None]) -> "Offers":
        """Each of these ways with each of the `options` of one component, of which so much is foreseen."""
        ways = [(*own, *option) for own in self.ways for option in options.ways]
        return Offers(ways, np.add.outer(self.touched, options.touched).ravel(), about, seat)

    def plan(self, number: int) -> Plan | None:
        """The plan, or None where a strategy refuses to join."""
        return known[0] if (known := self._known(number)) else None

    def figures(self, number: int) -> Figures | None:
        """What is weighed of the plan."""
        return known[1] if (known := self._known(number)) else None

    def _known(self, number: int) -> tuple[Plan, Figures] | None:
        if number not in self._plans:
            plan = self._seat(self.ways[number])
            self._plans[number] = (plan, figures(plan)) if plan else None
        return self._plans[number]

    @property
    def priced(self) -> int:
        """How many of them are priced."""
        return len(self._plans)

    def simple(self) -> list[int]:
        """Their numbers, simple ones first: those that touch few components, then those that take little time."""
        order: list[int] = np.lexsort((self.foreseen.effort, self.touched)).tolist()
        return order


def unbeaten(offers: Offers, price: Price, scale: Scale) -> Offers:
    """The offers that no other beats, simple ones first.

    One that touches more components, or takes longer, must be better by a unit in some respect to count. Those that
    none is foreseen to beat are priced first, as few of the others are then left to price.
    """
    first = hopeful(offers, price, scale)
    if offers.priced == len(offers):  # so that nothing is left to foresee
        return offers.some(first)
    seen = set(first)
    priced = dict(_priced(offers, (first, [n for n in offers.simple() if n not in seen]), price, scale))
    order = [n for n in offers.simple() if n in priced]
    return offers.some([order[n] for n in front(np.array([priced[n] for n in order]).T)])


def hopeful(offers: Offers, price: Price, scale: Scale) -> list[int]:
    """The numbers of those that none is foreseen to beat, simple ones first."""
    order = offers.simple()
    return [order[n] for n in front(np.stack(price(offers.foreseen, scale))[:, order])]


def _priced(offers: Offers, order: Iterable[Sequence[int]], price: Price, scale: Scale) -> Iterator[tuple[int, Array]]:
    """Those of the offers, in this order, that none before them is foreseen to beat, with their prices."""
    about = np.stack(price(offers.foreseen, scale))
    front = Front(*about.shape)
    for numbers in order:
        for number in (numbers[left] for left in front.leaves(about[:, numbers])):
            own = None if front.beats(about[:, number]) else offers.figures(number)
            if own is not None:
                column = np.array(price(own, scale), dtype=float)
                yield number, column
                if not front.beats(column):
                    front.enter(column)
