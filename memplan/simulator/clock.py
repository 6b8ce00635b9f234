"""When the host, the device and the link are done with what they were given."""

from dataclasses import dataclass
from typing import NamedTuple

from memplan.facts import Rates

NEVER = float("-inf")
"""When the device is done with what the host did not issue."""


class Work(NamedTuple):
    """What is done between two moments at which something else happens, in seconds.

    In `host` the host issues it. The device is `busy` with it, and is done no sooner than it would be with nothing to
    do before: `behind` when the host began.
    """

    host: float = 0.0
    busy: float = 0.0
    behind: float = NEVER

    @classmethod
    def of(cls, busy: float, launches: int, rates: Rates) -> "Work":
        """So many ops: the device begins with the first, and ends no sooner than the last is issued."""
        if not launches:
            return cls(busy=busy)
        host = launches * rates.launch
        return cls(host, busy, max(rates.launch + busy, host))

    def then(self, other: "Work") -> "Work":
        """This and then the other."""
        behind = max(self.behind + other.busy, self.host + other.behind)
        return Work(self.host + other.host, self.busy + other.busy, behind)


@dataclass
class Clock:
    """When the host, the device and the link are done with what they were given, in seconds since the call began."""

    rates: Rates
    host: float = 0.0
    device: float = 0.0
    link: float = 0.0

    @property
    def end(self) -> float:
        """When all of them are done."""
        return max(self.host, self.device, self.link)

    def compute(self, work: Work) -> None:
        """The host issues work and goes on; the device does it behind what it has to do."""
        self.device = max(self.device + work.busy, self.host + work.behind)
        self.host += work.host

    def prefetch(self, moved: float, pinning: float) -> None:
        """The host pins what is not pinned, and hands the copy to the link."""
        self.host += pinning
        self.link = max(self.link, self.host) + moved

    def follow(self, moved: float) -> None:
        """The link takes a copy once the host has issued it and the device is done with what it replaces."""
        self.link = max(self.link, self.host, self.device) + moved

    def on_host(self, busy: float) -> None:
        """The host computes by itself."""
        self.host += busy

    def wait(self) -> None:
        """The host waits for the copies under way."""
        self.host = max(self.host, self.link)

    def finish(self) -> None:
        """The host waits for the device."""
        self.host = max(self.host, self.device)

    def copy(self, moved: float) -> None:
        """A copy that the host waits for, behind all that the device still has to do."""
        self.finish()
        self.host += moved
        self.device = self.host
