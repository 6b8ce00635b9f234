"""One measured run, phase by phase, beside its prediction. It holds figures and words, and no tensor."""

from dataclasses import dataclass

PEAKED = ("cuda", "xpu")
"""Devices whose allocator tells torch its peaks; of every other one seconds and host memory are all there is."""


@dataclass(frozen=True)
class Figures:
    """What a phase takes; None where that is not known.

    `allocated` and `reserved` are bytes of device memory at their peaks, as `torch.cuda.max_memory_allocated` and
    `max_memory_reserved` count them; `ram` is the most host memory of the process in bytes.
    """

    allocated: int | None = None
    reserved: int | None = None
    seconds: float | None = None
    ram: int | None = None


@dataclass(frozen=True)
class Phase:
    """A phase of a call in one component, "" for the pipeline's own code, as a bill names them."""

    phase: str
    component: str
    predicted: Figures = Figures()
    measured: Figures = Figures()

    def residual(self, name: str) -> float | None:
        """Measured less predicted, in the figure's own unit; None where either is not known."""
        predicted, measured = getattr(self.predicted, name), getattr(self.measured, name)
        return None if predicted is None or measured is None else measured - predicted


@dataclass(frozen=True)
class Place:
    """The machine of a run: its card, "" without one, the card's driver, and versions of what decides about memory."""

    card: str
    driver: str
    torch: str
    diffusers: str
    memplan: str


@dataclass(frozen=True)
class Record:
    """A run: when, in UTC as 2026-01-31T12:00:00; where; what was called, under which plan; and its phases.

    `content` tells models of other weights' names, shapes and dtypes apart, "" where nothing was planned for; `digest`
    calls with other arguments, which `call` has in words. `device` is the type that torch calls the device by.
    `beside` are bytes that other tensors than the pipeline's weights held on it before the call; `clean` is whether
    the allocator's cache was given back before it. `why_none` says why nothing was predicted, "" where it was.
    """

    at: str
    place: Place
    model: str
    class_name: str
    content: str
    digest: str
    call: tuple[tuple[str, str], ...]
    plan: str
    device: str
    beside: int
    clean: bool
    why_none: str
    phases: tuple[Phase, ...]

    @property
    def compared(self) -> bool:
        """Whether the device is one that the prediction is for; a run on the CPU is not."""
        return self.device in PEAKED and not self.why_none

    @property
    def excess(self) -> int:
        """Bytes of device memory that the worst phase took beyond its prediction; 0 where none did, or none is known.

        What other tensors held before is not counted. What is reserved counts only where the run began clean: else
        what earlier calls left in the cache is in it.
        """
        if not self.compared:
            return 0
        names = ("allocated", "reserved") if self.clean else ("allocated",)
        found = (phase.residual(name) for phase in self.phases for name in names)
        return max(0, *(int(more) - self.beside for more in found if more is not None), 0)

    @property
    def pace(self) -> float | None:
        """How many times as long as predicted it took; None where that is not known."""
        known = [p for p in self.phases if p.predicted.seconds is not None and p.measured.seconds is not None]
        predicted = sum(phase.predicted.seconds or 0.0 for phase in known)
        return sum(phase.measured.seconds or 0.0 for phase in known) / predicted if predicted else None

    def __str__(self) -> str:
        """As `memplan history` shows it."""
        from memplan.faces.report.history import run

        return run(self)
