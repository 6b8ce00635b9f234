"""Dry runs with the CPU's kernels against real runs on this CPU."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from memplan.facts import MIB
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from tests.accuracy.measured import component_peaks
from tests.pipelines import EVERY_FAMILY, build, inputs

CONVOLUTIONAL = ("unet", "vae")
"""Components made of convolutions."""

SMALL = 64
"""Bytes that scalars may take beside the tensors of a call."""

WITHOUT_A_DECODE: dict[str, Any] = {"output_type": "latent"}
"""For bfloat16: a processor without its instructions takes minutes for one decode."""


@dataclass(frozen=True)
class Pair:
    """The traced and the measured peak of one component call, in bytes."""

    family: str
    dtype: torch.dtype
    component: str
    method: str
    traced: int
    measured: int

    @property
    def error(self) -> float:
        """Relative error of the trace."""
        return self.traced / self.measured - 1

    @property
    def tolerance(self) -> float:
        """1 %, for convolutions 3 %."""
        return 0.03 if self.component in CONVOLUTIONAL else 0.01


def pairs(
    family: str,
    dtype: torch.dtype = torch.float32,
    size: str = "medium",
    prepare: Callable[[Any], Any] = lambda pipe: None,
    **changes: Any,
) -> list[Pair]:
    """Each component call of one pipeline, traced and then run; `changes` are other arguments of the call.

    `prepare` is done to the pipeline before.
    """
    pipe = build(family, size, dtype)
    prepare(pipe)
    trace = dry_run(open_pipeline(pipe), inputs(family, size) | changes, device="cpu")
    traced: dict[tuple[str, str], int] = {}
    for step in trace.timeline:
        visited = trace.calls[step.call]
        traced.setdefault((visited.component, visited.method), visited.peak_segment.peak)
    measured = component_peaks(pipe, inputs(family, size) | changes)
    return [Pair(family, dtype, *key, traced.get(key, 0), peak) for key, peak in measured.items()]


def lines(families: Iterable[str] = (), as_markdown: bool = False, size: str = "medium") -> Iterator[str]:
    """The table of all families, one line after the other."""
    row = "| {} |".format(" | ".join(["{}"] * 6)) if as_markdown else "{:<10} {:<9} {:<24} {:>12} {:>12} {:>8}"
    yield row.format("pipeline", "dtype", "call", "measured MiB", "traced MiB", "error")
    if as_markdown:
        yield row.format(*["---"] * 6)
    for family in families or EVERY_FAMILY:
        for dtype, changes in ((torch.float32, dict[str, Any]()), (torch.bfloat16, WITHOUT_A_DECODE)):
            for p in pairs(family, dtype, size, **changes):
                figures = (f"{p.measured / MIB:.3f}", f"{p.traced / MIB:.3f}", f"{p.error:+.2%}")
                yield row.format(p.family, str(p.dtype).removeprefix("torch."), f"{p.component}.{p.method}", *figures)
