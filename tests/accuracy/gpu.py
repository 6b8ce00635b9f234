"""Plans priced, applied and run on the CUDA device that is here: the peaks of its allocator against the bill's."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from memplan import planner
from memplan.applier import apply
from memplan.faces import api
from memplan.facts import MIB, Facts
from memplan.planner import Plan
from memplan.registry import parse_plan
from memplan.run import Run
from memplan.strategies import OnGpu
from tests.pipelines import build, inputs

PLANS = (
    "everything on the GPU",
    "vae_tiling:vae",
    "model_offload",
    "sequential_offload",
    "group_offload:{denoiser},level=block_level,blocks=1",
    "group_offload:{denoiser},level=leaf_level",
    "group_offload:{denoiser},level=block_level,blocks=1,stream=true",
    "group_offload:{denoiser},level=leaf_level,stream=true,low_cpu_mem=true",
    "layerwise_casting:{denoiser}",
    "layerwise_casting:{denoiser} + group_offload:{denoiser},level=leaf_level,stream=true",
)
"""What is run, with the name of the pipeline's denoiser; components that no strategy places are on the device."""
FAMILIES = ("flux", "sdxl", "sd3", "wan", "cogvideox", "ltx")
CALLS = 2
"""The first call loads kernels and learns the order of streamed groups; the last one is measured."""


@dataclass(frozen=True)
class Measured:
    """Peaks of one call under one plan, in bytes: (allocated, reserved) as predicted and as the allocator reports."""

    family: str
    plan: str
    predicted: tuple[int, int]
    measured: tuple[int, int]

    @property
    def errors(self) -> tuple[float, float]:
        """Relative errors of the predictions; 0.01 is one percent too high."""
        allocated, reserved = (ours / real - 1 for ours, real in zip(self.predicted, self.measured, strict=True))
        return allocated, reserved


def run(family: str, plan: str, size: str = "medium", dtype: torch.dtype = torch.bfloat16) -> Measured | None:
    """One plan on a new pipeline of `family`; None where the plan does not apply to it."""
    pipe, call = build(family, size, dtype), inputs(family, size)
    facts = api.facts(pipe, call)
    found = _plan(facts, plan)
    if found is None:
        return None
    memory = [peak.memory for peak in found.bill.peaks]
    predicted = max(m.allocated for m in memory), max(m.reserved for m in memory)
    with apply(found.strategies, pipe, "cuda"):
        peaks = [_peaks(pipe, inputs(family, size)) for _ in range(CALLS)]
    return Measured(family, plan, predicted, peaks[-1])


def _plan(facts: Facts, words: str) -> Plan | None:
    names = [component.name for component in facts.model.components]
    denoiser = next(name for name in ("transformer", "unet") if name in names)
    chosen = parse_plan(words.format(denoiser=denoiser), facts)
    if any(strategy.refuses(Run(facts)) for strategy in chosen):
        return None
    placed = planner.seated(facts, chosen).run.placements
    return planner.seated(facts, [*(OnGpu(name) for name in names if name not in placed), *chosen])


def _peaks(pipe: Any, call: dict[str, Any]) -> tuple[int, int]:
    """What `torch.cuda` reports of one call: the most that was allocated, and reserved, in bytes."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    pipe(**call)
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def lines(families: Sequence[str]) -> Iterator[str]:
    """The table of all plans, one line after the other; without families, of those of the tests."""
    major, minor = torch.cuda.get_device_capability()
    yield f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}, torch {torch.__version__}"
    row = "{:<10} {:<84} {:>9} {:>9} {:>8} {:>9} {:>9} {:>8}"
    allocated, reserved = ("alloc.", "predicted", "error"), ("reserved", "predicted", "error")
    yield row.format("pipeline", "plan", *allocated, *reserved)
    for family in families or FAMILIES:
        for plan in PLANS:
            found = run(family, plan)
            if found is not None:
                pairs = zip(found.measured, found.predicted, found.errors, strict=True)
                figures = [f for m, p, e in pairs for f in (f"{m / MIB:.1f}", f"{p / MIB:.1f}", f"{e:+.2%}")]
                yield row.format(family, plan, *figures)
