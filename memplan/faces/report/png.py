"""The timeline of one plan as a still picture, drawn with Pillow, which diffusers needs anyway."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from memplan.faces.report.bill import margin, where
from memplan.faces.report.html.colours import light
from memplan.faces.report.html.timelines import Names, drawn, rows
from memplan.facts.units import GIB, MINUTE, TENTHS, amount, duration
from memplan.planner import Plan
from memplan.planner.label import label

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

WIDE, HIGH = 1600, 900
LEFT, TOP, RIGHT, BOTTOM = 110, 220, 40, 150
"""Around the plot."""
GAP = 4
"""Pixels between the name of a phase and what is beside it, at least."""
COLOURS = light()
INK, SOFT, LINE, GROUND, LIMIT = (COLOURS[name] for name in ("ink", "soft", "line", "ground", "limit"))
ABOVE_WEIGHTS = ("workspace", "unused", "copies", "activations")
STEPS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
LONGEST = 140
"""Characters of a line of small text."""


def picture(plan: Plan) -> bytes:
    """A PNG of device memory over the seconds of a call, against what plans may use."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (WIDE, HIGH), GROUND)
    _Drawing(ImageDraw.Draw(canvas), plan).everything()
    out = BytesIO()
    canvas.save(out, "PNG", optimize=True)
    return out.getvalue()


class _Drawing:
    """The parts of the picture."""

    def __init__(self, draw: "ImageDraw", plan: Plan) -> None:
        """Bytes and seconds get their places."""
        self.draw, self.plan = draw, plan
        self.timeline = drawn(plan, Names())
        self.rows = list(rows(self.timeline))
        weights = {f"weights of {name}": COLOURS[f"w{min(n, 5)}"] for name, n in self.timeline["weights"]}
        colours = {"context": COLOURS["context"], **weights, **{name: COLOURS[name] for name in ABOVE_WEIGHTS}}
        held = {name for _, _, parts in self.rows for name, nbytes in parts.items() if nbytes}
        self.colours = {name: colour for name, colour in colours.items() if name in held}
        self.limit = plan.run.facts.machine.vram
        self.end = max((end for _, end, _ in self.rows), default=1.0) or 1.0
        self.highest = max(self.rows, key=lambda row: sum(row[2].values()))
        top = sum(self.highest[2].values())
        self.most = max(top, self.limit if self.limit <= 2.5 * top else 0) * 1.12

    def x(self, seconds: float) -> float:
        """Where a second is."""
        return LEFT + seconds / self.end * (WIDE - LEFT - RIGHT)

    def y(self, nbytes: float) -> float:
        """Where an amount is."""
        return HIGH - BOTTOM - nbytes / self.most * (HIGH - TOP - BOTTOM)

    def text(self, at: tuple[float, float], words: str, size: int, colour: str = INK, anchor: str = "la") -> None:
        """Words at a place."""
        from PIL import ImageFont

        self.draw.text(at, words, fill=colour, font=ImageFont.load_default(size), anchor=anchor)

    def everything(self) -> None:
        """From the back to the front."""
        self.grid()
        self.phases()
        self.stack()
        self.frame()
        self.peak()
        self.key()

    def grid(self) -> None:
        """Lines and figures of GiB and of seconds."""
        for at in _ticks(self.most / GIB, 8):
            self.draw.line((LEFT, self.y(at * GIB), WIDE - RIGHT, self.y(at * GIB)), fill=LINE)
            self.text((LEFT - 10, self.y(at * GIB)), f"{at:g}", 20, SOFT, "rm")
        unit, word = (MINUTE, "min") if self.end > TENTHS * MINUTE else (1, "s")
        for at in _ticks(self.end / unit, 10):
            self.text((self.x(at * unit), HIGH - BOTTOM + 10), f"{at:g} {word}", 20, SOFT, "ma")
        self.text((LEFT - 10, TOP - 10), "GiB", 20, SOFT, "rs")
        self.text((WIDE - RIGHT, HIGH - BOTTOM + 36), "time of the call", 20, SOFT, "ra")

    def stack(self) -> None:
        """In each column of pixels the highest of the moments that fall into it."""
        columns: dict[int, dict[str, int]] = {}
        for begin, end, parts in self.rows:
            for column in range(int(self.x(begin)), max(int(self.x(end)), int(self.x(begin)) + 1)):
                if column not in columns or sum(columns[column].values()) < sum(parts.values()):
                    columns[column] = parts
        for column, parts in columns.items():
            below = 0
            for name, colour in self.colours.items():
                above = below + parts.get(name, 0)
                if above > below:
                    self.draw.line((column, self.y(below), column, self.y(above)), fill=colour)
                below = above

    def phases(self) -> None:
        """Where each phase begins, and the names of those that can be seen or hold the peak."""
        found = list[tuple[str, float, float]]()
        for stretch in self.timeline["stretches"]:
            end = stretch["begin"] + stretch["moving"] + stretch["repeat"] * stretch["seconds"]
            begin = found.pop()[1] if found and found[-1][0] == stretch["phase"] else stretch["begin"]
            found.append((stretch["phase"], begin, end))
        seen = [one for one in found if self.x(one[2]) - self.x(one[1]) >= 1 or one[1] <= self.highest[0] < one[2]]
        for _, begin, _ in seen:
            self.draw.line((self.x(begin), TOP - 24, self.x(begin), HIGH - BOTTOM), fill=SOFT)
        for name, left in self.placed([(name, self.x(begin), self.x(end)) for name, begin, end in seen]):
            self.text((left, TOP - 6), name, 20, INK, "ls")

    def placed(self, phases: Sequence[tuple[str, float, float]]) -> list[tuple[str, float]]:
        """Names with where they begin: over a phase, or where it is too narrow behind or before it, if that is free."""
        wide = [one for one in phases if self.length(one[0]) + 2 * GAP < one[2] - one[1]]
        found = [(name, (left + right - self.length(name)) / 2) for name, left, right in wide]
        for name, left, right in (one for one in phases if one not in wide):
            own = self.length(name)
            starts = (start for start in (right + GAP, left - GAP - own) if LEFT <= start <= WIDE - RIGHT - own)
            free = (s for s in starts if all(s + own + GAP <= at or at + self.length(n) + GAP <= s for n, at in found))
            found += [(name, start) for start in [next(free, None)] if start is not None]
        return found

    def length(self, words: str) -> float:
        """Pixels of small text."""
        from PIL import ImageFont

        return float(ImageFont.load_default(20).getlength(words))

    def frame(self) -> None:
        """What is drawn, the figures, and the limit."""
        bill, facts = self.plan.bill, self.plan.run.facts
        self.text((LEFT, 24), f"memplan: {facts.subject}", 34)
        words = label(self.plan.strategies, facts)
        self.text((LEFT, 70), shorten(words), 20, SOFT)
        figures = f"{duration(bill.seconds)}, VRAM {amount(bill.peak.memory.required)} ({margin(self.plan)})"
        self.text((LEFT, 100), f"{figures}, RAM {amount(bill.host.peak)}, loss: {bill.loss.word}", 24)
        missing = ", and ".join(map(str, self.plan.shortages))
        self.text((LEFT, 166), shorten(f"does not fit: needs {missing}") if missing else "", 20, LIMIT)
        self.draw.line((LEFT, HIGH - BOTTOM, WIDE - RIGHT, HIGH - BOTTOM), fill=SOFT)
        above = "" if self.limit <= self.most else ", above this picture"
        y = self.y(min(self.limit, self.most))
        if not above:
            self.draw.line((LEFT, y, WIDE - RIGHT, y), fill=LIMIT, width=3)
        self.text((WIDE - RIGHT - 24, y - 6), f"limit {amount(self.limit)}{above}", 22, LIMIT, "rs")

    def peak(self) -> None:
        """The highest moment: its figure, its module and its op."""
        begin, end, parts = self.highest
        top, found = sum(parts.values()), max(self.plan.bill.peaks, key=lambda p: p.memory.required)
        x, y = self.x((begin + end) / 2), self.y(top)
        self.draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=INK, outline=GROUND, width=2)
        words = f"peak {amount(top)} in {found.phase}, at {where(found)}"
        self.text((LEFT, 134), words, 24)

    def key(self) -> None:
        """Squares with words."""
        x, y = float(LEFT), HIGH - 74
        for name, colour in self.colours.items():
            room = 36 + self.length(name)
            if x + room > WIDE - RIGHT:
                x, y = float(LEFT), y + 32
            self.draw.rectangle((x, y, x + 18, y + 18), fill=colour)
            self.text((x + 26, y + 9), name, 20, INK, "lm")
            x += room


def shorten(words: str) -> str:
    """Words that fit beside each other."""
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"


def _ticks(most: float, number: int) -> list[float]:
    """Round figures from 0 up to `most`, about so many."""
    step = next((step for step in STEPS if most / step <= number), STEPS[-1])
    return [round(n * step, 6) for n in range(int(most / step) + 1)]
