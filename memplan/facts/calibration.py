"""What was measured of the present machine, and the rates that follow from it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

from memplan.facts.rates import Rates
from memplan.facts.trace import MATMUL

Table = tuple[tuple[str, str, float], ...]
"""Rates by family of ops and dtype."""
COMPUTE, ON_HOST = "compute", "on_host"
"""Kinds of readings that are one for each family of ops and dtype."""
WORKSPACE, CONTEXT, PINNED_BLOCK = "workspace", "context", "pinned block"
"""Kinds that no rate follows from: bytes, to hold against memplan's own rules."""
LIMITS = (WORKSPACE, CONTEXT, PINNED_BLOCK)
_KEPT = ("compute", "on_host", "fallback", "host", "source")
"""Fields of Rates that are not one reading each."""
SINGLE = tuple(f.name for f in fields(Rates) if f.name not in _KEPT)
"""Those that are."""
KINDS = (COMPUTE, ON_HOST, *SINGLE, *LIMITS)


@dataclass(frozen=True)
class Setting:
    """What a measurement holds for. `gpu`, `driver` and `link` are "" without a card or where the driver is silent."""

    gpu: str
    driver: str
    link: str
    torch: str
    cpu: str

    def differences(self, here: "Setting") -> tuple[str, ...]:
        """What is otherwise `here`, in words."""
        pairs = ((f.name, getattr(self, f.name), getattr(here, f.name)) for f in fields(self))
        return tuple(f"{name} {then or 'none'}, here {now or 'none'}" for name, then, now in pairs if then != now)


@dataclass(frozen=True)
class Reading:
    """One figure: FLOP/s, bytes/s, seconds, or bytes where `kind` is one of LIMITS; else it is a field of Rates.

    Those of `compute` and `on_host` are of one `family` of ops on one `dtype`. `value` is the median of its runs, and
    `spread` how far that lies from the best of them, as a share. `assumed` is what memplan takes where nothing is
    measured. Where `value` is None, `note` says why; else of what it was measured.
    """

    kind: str
    family: str = ""
    dtype: str = ""
    value: float | None = None
    spread: float = 0.0
    note: str = ""
    assumed: float | None = None

    @property
    def name(self) -> str:
        """As people read it: "matmul bfloat16", "matmul float32 on the CPU", "to_device"."""
        if self.kind not in (COMPUTE, ON_HOST):
            return " ".join(filter(None, (self.kind, self.family, self.dtype)))
        return f"{self.family} {self.dtype}{' on the CPU' if self.kind == ON_HOST else ''}"

    @property
    def unit(self) -> str:
        """ "FLOP/s", "B/s", "s" or "B"."""
        if self.kind in LIMITS:
            return "B"
        special = {COMPUTE: "FLOP/s", ON_HOST: "FLOP/s", "launch": "s", "hook": "s", "dispatch": "s"}
        return special.get(self.kind, "B/s")

    @property
    def ratio(self) -> float | None:
        """Measured by assumed, where both are known."""
        return self.value / self.assumed if self.value is not None and self.assumed else None

    def of(self, rates: Rates) -> float | None:
        """The same figure among `rates`; None for a limit."""
        if self.kind == COMPUTE:
            return rates.flops(self.family, self.dtype)
        if self.kind == ON_HOST:
            return rates.host_flops(self.family, self.dtype)
        return None if self.kind in LIMITS else getattr(rates, self.kind)


@dataclass(frozen=True)
class Calibration:
    """Readings of one machine; `date` is that of the day, as 2026-01-31."""

    setting: Setting
    date: str
    readings: tuple[Reading, ...]

    def rates(self, assumed: Rates) -> Rates:
        """The rates of that machine: as measured, and where nothing could be as `assumed`; `source` tells which."""
        compute, on_host = self._table(COMPUTE, assumed.compute), self._table(ON_HOST, assumed.on_host)
        single = {kind: value for r in self.readings if (kind := r.kind) in SINGLE and (value := r.value) is not None}
        return replace(
            assumed,
            compute=compute,
            on_host=on_host,
            fallback=_slowest(compute, assumed.fallback),
            host=_slowest(on_host, assumed.host),
            source=self._source(single, assumed),
            **single,
        )

    def _known(self) -> Iterator[Reading]:
        return (reading for reading in self.readings if reading.value is not None)

    def _table(self, kind: str, assumed: Table) -> Table:
        found = {(family, dtype): rate for family, dtype, rate in assumed}
        found |= {(r.family, r.dtype): r.value for r in self._known() if r.kind == kind and r.value is not None}
        return tuple((*key, rate) for key, rate in found.items())

    def _source(self, single: Mapping[str, object], assumed: Rates) -> str:
        """When it was measured, and what was not."""
        kinds = {reading.kind for reading in self._known()}
        wholes = ["compute"] if COMPUTE not in kinds else []
        missing = [*wholes, *(name for name in SINGLE if name not in single)]
        missing += [r.name for r in self.readings if r.kind == COMPUTE and r.value is None and not wholes]
        return f"measured on this machine on {self.date}; {', '.join(missing)} by {assumed.source}"


def _slowest(table: Table, otherwise: float) -> float:
    """The slowest matrix products in `table`: what is taken for a dtype that is not in it."""
    return min((rate for family, _, rate in table if family == MATMUL), default=otherwise)
