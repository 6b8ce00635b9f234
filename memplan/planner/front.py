"""A front of what no other beats, all of it compared at once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Front:
    """Rows of prices, each of which is the better the less it is, that others are held against as they enter."""

    def __init__(self, most: int, width: int) -> None:
        """There is none yet; there will be `most` rows at most, of so many prices."""
        self._prices = np.empty((most, width))
        self._count = 0

    def beats(self, own: Array) -> bool:
        """Whether one of the front is better in every respect, or no worse by a unit."""
        return bool((self._prices[: self._count] <= own + 1).all(axis=1).any())

    def enter(self, own: Array) -> None:
        """Takes a row in. Those that it is better than stay, as what they beat it beats as well."""
        self._prices[self._count] = own
        self._count += 1


def left(own: Array, prices: Array) -> Array:
    """Which rows of `prices` it leaves unbeaten that one more has entered."""
    beaten: Array = (own <= prices + 1).all(axis=1)
    return np.logical_not(beaten)


def unbeaten(prices: Array) -> list[int]:
    """The rows that no other beats, by number, where they enter in this order.

    A row is beaten that is better in no respect by a unit than one before it, or than one after it at all.
    """
    entered, waiting, rows = list[int](), np.arange(len(prices)), prices
    while len(waiting):
        entered.append(int(waiting[0]))
        stay = left(rows[0], rows[1:])
        waiting, rows = waiting[1:][stay], rows[1:][stay]
    own = prices[entered]
    return [n for at, n in enumerate(entered) if not (own[at + 1 :] <= own[at]).all(axis=1).any()]
