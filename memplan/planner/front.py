"""A front of what no other beats, all of it compared at once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Front:
    """Columns of prices, each of which is the better the less it is, that others are held against as they enter."""

    def __init__(self, width: int, most: int) -> None:
        """There is none yet; there will be `most` columns at most, of so many prices."""
        self._prices = np.empty((width, most))
        self._count = 0

    def beats(self, own: Array) -> bool:
        """Whether one of the front is better in every respect, or no worse by a unit."""
        return bool((self._prices[:, : self._count] <= (own + 1)[:, None]).all(axis=0).any())

    def enter(self, own: Array) -> None:
        """Takes one in. Those that it is better than stay, as what they beat it beats as well."""
        self._prices[:, self._count] = own
        self._count += 1


def left(own: Array, prices: Array) -> Array:
    """The numbers of the columns of `prices` that one more which has entered leaves unbeaten."""
    return np.flatnonzero((own[:, None] > prices + 1).any(axis=0))


def unbeaten(prices: Array) -> list[int]:
    """The columns that no other beats, by number, where they enter in this order.

    One is beaten that is better in no respect by a unit than one before it, or than one after it at all.
    """
    entered, waiting = list[int](), np.arange(prices.shape[1])
    others = prices
    while len(waiting):
        entered.append(int(waiting[0]))
        stay = 1 + left(others[:, 0], others[:, 1:])
        waiting, others = waiting[stay], others[:, stay]
    own = prices[:, entered]
    return [n for at, n in enumerate(entered) if not (own[:, at + 1 :] <= own[:, at : at + 1]).all(axis=0).any()]
