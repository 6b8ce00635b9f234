"""When the host, the device and the link are done with what they were given."""

from dataclasses import dataclass

from memplan.facts import Rates


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

    def compute(self, busy: float, launches: int) -> None:
        """The host issues ops; the device begins with the first, and ends no sooner than the last is issued."""
        begin = max(self.device, self.host + min(launches, 1) * self.rates.launch)
        self.host += launches * self.rates.launch
        self.device = max(begin + busy, self.host) if launches else self.device + busy

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
