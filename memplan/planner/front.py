"""A front of what no other beats, all of it compared at once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FEW = 1024
"""So many are held each against each other; of more each one against those that are left."""


class Front:
    """Columns of prices, each of which is the better the less it is, that others are held against as they enter."""

    def __init__(self, width: int, most: int) -> None:
        """There is none yet; there will be `most` columns at most, of so many prices."""
        self._prices = np.empty((width, most))
        self._count = 0

    def beats(self, own: Array) -> bool:
        """Whether one of the front is better in every respect, or no worse by a unit."""
        return bool(_no_more(self._prices[:, : self._count], (own + 1)[:, None]).any())

    def enter(self, own: Array) -> None:
        """Takes one in. Those that it is better than stay, as what they beat it beats as well."""
        self._prices[:, self._count] = own
        self._count += 1

    def leaves(self, prices: Array) -> Array:
        """The numbers of the columns of `prices` that none of the front beats."""
        waiting, later = np.arange(prices.shape[1]), prices + 1
        for number in range(self._count):
            stay = ~_no_more(self._prices[:, number : number + 1], later)[0]
            waiting, later = waiting[stay], later[:, stay]
        return waiting


def unbeaten(prices: Array) -> list[int]:
    """The columns that no other beats, by number, where they enter in this order.

    One is beaten that is better in no respect by a unit than one before it, or than one after it at all.
    """
    entered, waiting, later = list[int](), np.arange(prices.shape[1]), prices + 1
    while len(waiting) > FEW:
        entered.append(int(waiting[0]))
        stay = ~_no_more(prices[:, waiting[:1]], later)[0]
        waiting, later = waiting[stay], later[:, stay]
    entered += waiting[_entering(_no_more(prices[:, waiting], later))].tolist()
    own = prices[:, entered]
    worse = np.atleast_1d(np.tril(_no_more(own, own), -1).any(axis=0))
    return [entered[number] for number in np.flatnonzero(~worse)]


def _no_more(prices: Array, others: Array) -> Array:
    """Whether each column, a row here, is no more in any respect than each of the others."""
    found: Array = np.ones((prices.shape[1], others.shape[1]), dtype=bool)
    for number in range(len(prices)):
        found &= prices[number][:, None] <= others[number]
    return found


def _entering(beats: Array) -> Sequence[int]:
    """The numbers of those that enter, by whether each beats each other."""
    there, entered = np.ones(len(beats), dtype=bool), list[int]()
    for number in range(len(beats)):
        if there[number]:
            entered.append(number)
            there &= ~beats[number]
    return entered
