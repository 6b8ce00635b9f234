"""A call whose prompt was encoded before, beside the first one with that prompt."""

from dataclasses import replace

from memplan.facts import REUSED
from memplan.run import Run
from memplan.simulator.bill import Bill, HostMemory, Peak


def kept(run: Run) -> int:
    """Bytes of encoded prompts that host memory holds at most; 0 where none are reused."""
    ways = (way.partition(":") for chosen in run.variants.values() for way in chosen)
    return max((int(number) for name, _, number in ways if name == REUSED), default=0) * run.facts.trace.encoded


def again(run: Run) -> Run:
    """The same run for a prompt that is encoded already: what encode_prompt() called is not called."""
    return replace(run, facts=replace(run.facts, trace=run.facts.trace.again))


def together(first: Bill, later: Bill, nbytes: int) -> Bill:
    """The bill of both: memory of whichever needs more, seconds and bytes moved of the `later` call.

    `nbytes` are kept in host memory. That they come to the device is not counted: it is what encoding would return.
    """
    found = {(peak.phase, peak.component): peak for peak in later.peaks}
    peaks = tuple(_higher(peak, found.get((peak.phase, peak.component)), nbytes) for peak in first.peaks)
    host = HostMemory(first.host.steady + nbytes, first.host.peak + nbytes, first.host.pinned)
    return replace(
        first,
        peaks=peaks,
        host=host,
        traffic=later.traffic,
        host_flops=later.host_flops,
        read_again=later.read_again,
        encoding=first.seconds - later.seconds,
    )


def _higher(peak: Peak, later: Peak | None, nbytes: int) -> Peak:
    """The higher of two peaks of one phase, with the seconds of the later."""
    if later is None:
        return replace(peak, host=peak.host + nbytes, seconds=0.0)
    highest = later if later.memory.required > peak.memory.required else peak
    return replace(highest, host=max(peak.host, later.host) + nbytes, seconds=later.seconds)
