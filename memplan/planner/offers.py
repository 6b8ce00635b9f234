"""Ways to fill seats, at their price, and those that no other beats; what is foreseen to be beaten is never priced."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import log

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


Price = Callable[[Figures, Scale], tuple[float, ...]]


def price_of(plan: Figures, scale: Scale) -> tuple[float, ...]:
    """What the front weighs, in units of its scale: device and host memory, seconds, loss, tiles, other calls and fit.

    Tiles and how well a plan fits count double, so that a small difference of memory matters where they differ.
    """
    return *_weighed(plan, scale), 2 * plan.rank, 0 if plan.comfortable else 2


def share_of(plan: Figures, scale: Scale) -> tuple[float, ...]:
    """All that an option of one component adds to a plan: memory in each phase, and the rest of its price."""
    phases = (required / scale.memory for required in plan.phases)
    return *phases, plan.steady / scale.memory, *_weighed(plan, scale)


def pinning_share_of(plan: Figures, scale: Scale) -> tuple[float, ...]:
    """The same where pinning is limited: what it pins is a part of it."""
    return *share_of(plan, scale), plan.pinned / FINE


def _weighed(plan: Figures, scale: Scale) -> tuple[float, ...]:
    """Device memory, host memory, seconds, loss, tiles and the number of other ways in which components are called."""
    return (
        plan.required / scale.memory,
        plan.host / scale.memory,
        log(max(plan.effort, INSTANT)) / scale.effort,
        plan.error / scale.loss,
        2 * plan.tiles,
        plan.ways,
    )


class Offer:
    """A way to fill seats. What it needs is foreseen; the plan is priced when that does not settle it."""

    def __init__(self, way: Way, touched: int, foreseen: Figures, seat: Callable[[], Plan | None]) -> None:
        """`touched` counts the components that it changes; `seat` makes the plan, or None where one refuses."""
        self.way, self.touched, self.foreseen, self._seat = way, touched, foreseen, seat

    @cached_property
    def plan(self) -> Plan | None:
        """The plan, or None where a strategy refuses to join."""
        return self._seat()

    @cached_property
    def figures(self) -> Figures | None:
        """What is weighed of the plan."""
        return figures(self.plan) if self.plan else None


def unbeaten(offers: Iterable[Offer], price: Price, scale: Scale) -> list[Offer]:
    """The offers that no other beats, simple ones first.

    One that touches more components, or takes longer, must be better by a unit in some respect to count. Those that
    none is foreseen to beat are priced first, as few of the others are then left to price.
    """
    from memplan.planner.front import Front  # which imports numpy: only a search needs it

    ordered = sorted(offers, key=_simple)
    first = set(map(id, hopeful(ordered, price, scale)))
    front, priced = Front[Offer](), list[Offer]()
    for offer in sorted(ordered, key=lambda o: id(o) not in first):
        if not front.beats(price(offer.foreseen, scale)) and offer.figures:
            priced.append(offer)
            front.enter(price(offer.figures, scale), offer)
    return _front(priced, lambda offer: price(offer.figures or offer.foreseen, scale))


def hopeful(offers: Iterable[Offer], price: Price, scale: Scale) -> list[Offer]:
    """Those that none is foreseen to beat."""
    return _front(offers, lambda offer: price(offer.foreseen, scale))


def _front(offers: Iterable[Offer], price: Callable[[Offer], tuple[float, ...]]) -> list[Offer]:
    from memplan.planner.front import Front

    front = Front[Offer]()
    for offer in sorted(offers, key=_simple):
        front.enter(price(offer), offer)
    return sorted(front.members, key=_simple)


def _simple(offer: Offer) -> tuple[int, float]:
    return offer.touched, offer.foreseen.effort
