"""The peak of each phase as a bar of characters, by what holds it, against the device memory that plans may use."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from memplan.faces.report.bill import worth_showing
from memplan.faces.report.layout import INDENT, WIDTH, paragraph
from memplan.facts.units import amount
from memplan.planner import Plan
from memplan.simulator import Peak

KINDS = ("weights", "copies", "activations", "workspace, context and the rest")
SHORTEST = 20
"""Characters of a bar at least."""
_RESET = "\x1b[0m"


@dataclass(frozen=True)
class Ink:
    """The characters of each of KINDS, that of the limit, and the terminal's colours of each, if any."""

    marks: str = "█▓▒░"
    limit: str = "│"
    colours: tuple[str, ...] = ()

    def drawn(self, kind: int, length: int) -> str:
        """So many characters of one kind."""
        text = self.marks[kind] * length
        return f"{self.colours[kind]}{text}{_RESET}" if self.colours and length else text


PLAIN = Ink("#%=.", "|")
"""For what is not written in Unicode."""
COLOURS = ("\x1b[34m", "\x1b[33m", "\x1b[31m", "\x1b[90m")
"""Blue, yellow, red and grey of the terminal; the characters differ as well."""


def bars(plan: Plan, ink: Ink) -> list[str]:
    """A bar for each phase, as many lines wide as the report."""
    shown, limit = worth_showing(plan.bill.phases), plan.run.facts.machine.vram
    names = [f"{peak.phase} {peak.component}".strip() for peak in shown]
    sizes = [amount(peak.memory.required) for peak in shown]
    left, right = max(map(len, names)), max(map(len, sizes))
    room = max(WIDTH.get() - INDENT - left - right - 4, SHORTEST)
    scale = room / max(limit, *(peak.memory.required for peak in shown), 1)
    rows = [
        f"{'':<{INDENT}}{name:<{left}}  {_bar(_parts(peak), limit, scale, room, ink)}  {size:>{right}}"
        for name, size, peak in zip(names, sizes, shown, strict=True)
    ]
    key = "   ".join(f"{ink.drawn(kind, 1)} {name}" for kind, name in enumerate(KINDS))
    return [*paragraph(f"Device memory at the peak of each phase; {ink.limit} {amount(limit)}"), *rows, f"  {key}"]


def _parts(peak: Peak) -> tuple[int, ...]:
    """Bytes of each of KINDS."""
    named = peak.weights, peak.copies, peak.activations
    return *named, peak.memory.required - sum(named)


def _bar(parts: Sequence[int], limit: int, scale: float, room: int, ink: Ink) -> str:
    """The parts beside each other, each ending where the sum up to it does, and the limit where nothing covers it."""
    ends = [round(total * scale) for total in accumulate(parts)]
    text = "".join(ink.drawn(kind, max(end - begin, 0)) for kind, (begin, end) in enumerate(_pairs(ends)))
    mark = min(round(limit * scale), room - 1)
    if mark < ends[-1]:
        return text + " " * (room - ends[-1])
    return f"{text}{' ' * (mark - ends[-1])}{ink.limit}{' ' * (room - mark - 1)}"


def _pairs(ends: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip([0, *ends], ends, strict=False))
