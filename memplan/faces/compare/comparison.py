"""What a comparison found: what both sides took, and how far their outputs are apart."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from statistics import median

from memplan.faces.compare.metrics import Likeness
from memplan.faces.compare.values import Value
from memplan.faces.history.meters import added
from memplan.faces.history.record import PEAKED, Figures


@dataclass(frozen=True)
class Side:
    """The calls of one side. `loss` is the word of the plan's bill, `predicted` what that says of a warm call.

    `first` is its first call, which starts what has to be started; `steady` are those after it. `held` are the most
    bytes that allocations of one more call held at once beyond what was there, on devices whose allocator keeps no
    peak; None elsewhere. `repeats` says whether the first seed gave the same outputs again, None where it was not
    called again. `failed` says what went wrong, "" where nothing did.
    """

    plan: str
    loss: str
    predicted: Figures | None = None
    first: Figures | None = None
    steady: tuple[Figures, ...] = ()
    held: int | None = None
    repeats: bool | None = None
    failed: str = ""

    @property
    def usual(self) -> Figures:
        """The highest peaks of the steady calls and the median of their seconds; of the first call where it is all."""
        every = self.steady or (() if self.first is None else (self.first,))
        if not every:
            return Figures()
        return replace(reduce(added, every), seconds=median(one.seconds or 0.0 for one in every))

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Those of the quickest and of the slowest steady call; None without any."""
        taken = [one.seconds for one in self.steady if one.seconds is not None]
        return (min(taken), max(taken)) if taken else None


@dataclass(frozen=True, eq=False)
class Pair:
    """The outputs that a Likeness is of: without the plan, and with it; None where a side gives none."""

    seed: int
    before: Value | None
    after: Value | None


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Both sides on a device, the likeness of each output, and the outputs themselves in the same order.

    `undone` says whether the pipeline gave the same outputs again once the plan was undone, None where that was not
    asked; `notes` are sentences about what is not given, and what stays.
    """

    model: str
    device: str
    call: tuple[tuple[str, str], ...]
    baseline: Side
    plan: Side
    likeness: tuple[Likeness, ...] = ()
    pairs: tuple[Pair, ...] = ()
    undone: bool | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def equal(self) -> bool:
        """Whether every output is equal bit by bit; False where the plan failed."""
        return bool(self.likeness) and all(one.equal for one in self.likeness)

    @property
    def psnr(self) -> float | None:
        """The lowest of all outputs in dB, infinite where all are equal; None where none has one."""
        return min(self._known("psnr"), default=None)

    @property
    def ssim(self) -> float | None:
        """The lowest of all pictures; None where none has one."""
        return min(self._known("ssim"), default=None)

    @property
    def most(self) -> float | None:
        """The largest difference of one number of any output; None where nothing could be compared."""
        return max(self._known("most"), default=None)

    @property
    def speedup(self) -> float | None:
        """How many times as long a warm call takes without the plan, by medians; None without warm calls of both."""
        without, under = self.baseline.usual.seconds, self.plan.usual.seconds
        return without / under if self.speedups and without and under else None

    @property
    def speedups(self) -> tuple[float, float] | None:
        """The least and the most of it, by the quickest and slowest warm calls of both; None without them."""
        without, under = self.baseline.seconds, self.plan.seconds
        return (without[0] / under[1], without[1] / under[0]) if without and under and under[0] else None

    @property
    def has_peaks(self) -> bool:
        """Whether the device's allocator keeps peaks."""
        return self.device in PEAKED

    def _known(self, name: str) -> Iterator[float]:
        return (value for value in (getattr(one, name) for one in self.likeness) if value is not None)

    def picture(self) -> bytes:
        """A PNG: without the plan, with it, and their difference, amplified. Raises BadInput without pictures."""
        from memplan.faces.compare.pictures import picture

        return picture(self)

    def save(self, folder: str | Path) -> tuple[Path, ...]:
        """Write each picture of both sides into `folder`, and arrays as .npy; the value names the files."""
        from memplan.faces.compare.files import save

        return save(self, Path(folder))

    def __str__(self) -> str:
        """As `memplan compare` shows it."""
        from memplan.faces.compare.table import table

        return table(self)

    def __repr__(self) -> str:
        """Both plans and the verdict."""
        from memplan.faces.compare.table import verdict

        return f"<Comparison of {self.plan.plan} with {self.baseline.plan}: {verdict(self)}>"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        from memplan.faces.compare.table import html

        return html(self)
