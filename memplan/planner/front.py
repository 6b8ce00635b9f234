"""A front of what no other beats, all of it compared at once."""

from itertools import compress
from typing import Generic, TypeVar

import numpy as np

Member = TypeVar("Member")


class Front(Generic[Member]):
    """Members that none of the others beats, with their prices, each of which is the better the less it is."""

    def __init__(self) -> None:
        """There is none."""
        self.members: list[Member] = []
        self._prices = np.empty((0, 0))

    def beats(self, own: tuple[float, ...]) -> bool:
        """Whether one of the front is better in every respect, or no worse by a unit."""
        return bool(self.members) and bool((self._prices <= np.array(own) + 1).all(axis=1).any())

    def enter(self, own: tuple[float, ...], member: Member) -> None:
        """Takes a member in, if none beats it, for those that it beats."""
        if self.beats(own):
            return
        if self.members:
            stay = np.logical_not((self._prices >= np.array(own)).all(axis=1))
            self.members = list(compress(self.members, stay.tolist()))
            self._prices = self._prices[stay]
        self.members.append(member)
        self._prices = np.vstack([self._prices.reshape(-1, len(own)), own])
