"""Puts the visits of a dry run, and the pipeline's own code between them, in order."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from memplan.facts import Call, Step
from memplan.probes.trace.doors import Visit
from memplan.probes.trace.ledger import Ledger, Recording, Stretch
from memplan.probes.trace.prompting import Prompting

OWN_CODE = ""
"""The component name of the pipeline's own code."""


@dataclass
class Entry:
    """A stretch of the timeline: a visit repeated, or own code. `base` is the highest of its repetitions.

    What is `prompted` is within the pipeline's encode_prompt().
    """

    component: str
    method: str
    phase: str
    recording: Recording
    base: int
    repeat: int = 1
    variant: tuple[str, ...] = ()
    prompted: bool = False
    others: dict[tuple[str, ...], Recording] = field(default_factory=dict)

    @property
    def height(self) -> int:
        """Bytes at its peak."""
        return self.base + max(s.peak for s in self.recording.stretches)

    def call(self) -> Call:
        """As a fact."""
        recording = self.recording
        names = (tuple(recording.modules), tuple(recording.ops) or ("",))
        place = (self.component, self.method, self.phase, self.base)
        pools = (recording.pool.reserved, recording.pool.highest, recording.reserved, recording.occupied)
        rows = tuple(recording.rows.get(module, 0) for module in recording.modules)
        results = tuple(recording.results.get(module, ()) for module in recording.modules)
        call = Call(*place, *names, recording.segments(), self.variant, *pools, recording.host, rows, recording.recast)
        return replace(call, results=results)


class Timeline:
    """Collects entries while the pipeline runs; equal neighbours are merged, own code between them as well."""

    def __init__(self, ledger: Ledger, phase_of: Callable[[str, str], str], prompt: Prompting) -> None:
        """An empty timeline; between visits `ledger` records the pipeline's own code."""
        self.ledger = ledger
        self.prompt = prompt
        self.phase_of = phase_of
        self.entries: list[Entry] = []
        self._last: Entry | None = None
        ledger.begin()

    def visit(self, visit: Visit) -> None:
        """A component was called, or the call replayed."""
        last, prompted = self._last, self.prompt.running
        if last is not None and last.recording is visit.recording and last.prompted is prompted:
            last.repeat += 1
            last.base = max(last.base, visit.base)
            return
        phase = self.phase_of(visit.component, visit.method)
        self._last = Entry(visit.component, visit.method, phase, visit.recording, visit.base)
        self._last.others, self._last.prompted = visit.others, prompted
        self.entries.append(self._last)

    def finish(self) -> tuple[tuple[Call, ...], tuple[Step, ...]]:
        """The calls and the order of their steps."""
        self.own_code()
        calls: dict[int, Call] = {}
        for entry in self.entries:
            key = id(entry.recording)
            known = calls.get(key)
            if known is None or known.base < entry.base:
                calls[key] = entry.call()
        order = list(calls)
        steps = (Step(order.index(id(e.recording)), e.repeat, e.prompted) for e in self.entries)
        return tuple(calls.values()), tuple(steps)

    def alternatives(self) -> tuple[Call, ...]:
        """The calls made in other ways; of several calls of one method the highest."""
        highest: dict[tuple[str, str, tuple[str, ...]], Entry] = {}
        for entry in self.entries:
            for variant, recording in entry.others.items():
                other = replace(entry, recording=recording, variant=variant)
                key = (entry.component, entry.method, variant)
                if key not in highest or highest[key].height < other.height:
                    highest[key] = other
        return tuple(entry.call() for entry in highest.values())

    def own_code(self) -> None:
        """Close the recording of own code; keep the higher one of those between repeated visits."""
        recording = self.ledger.end(Recording(self.ledger.live, [Stretch([], 0, 0)]))
        phase = self._own_phase()
        within = self.prompt.running and self._last is not None and self._last.prompted
        entry = Entry(OWN_CODE, "", phase, recording, recording.base, prompted=within)
        tail = self.entries[-1] if self.entries else None
        if tail is None or tail.component != OWN_CODE:
            self.entries.append(entry)
            return
        higher, lower = (entry, tail) if entry.height > tail.height else (tail, entry)
        higher.recording.host = max(higher.recording.host, lower.recording.host)
        higher.prompted = higher.prompted and lower.prompted
        self.entries[-1] = higher

    def _own_phase(self) -> str:
        last = self._last
        if last is None:
            return "preparing"
        return "post-processing" if last.method == "decode" or last.component == OWN_CODE else last.phase
