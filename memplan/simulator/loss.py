"""Loss of precision by storage format, by tiles and by step caches."""

from functools import lru_cache
from math import hypot, sqrt

from memplan.facts import BACKEND, BATCHED, TILED, Component
from memplan.run import Part, Run, Stored
from memplan.simulator.bill import Loss
from memplan.simulator.formats import CASTS, FORMATS

DTYPES = {"bfloat16": 0.00166, "float16": 0.000208, "float32": 2.54e-8}
"""Relative root-mean-square error of normally distributed weights in another dtype; a test measures them."""

WEIGHTS_OF = {"bnb int8": "int8", "int8 dynamic": "int8", "float8 dynamic": "float8"}
"""Formats whose layers round their inputs too, and the one that rounds weights alone alike."""
ROUNDING = tuple(f"{BACKEND}:{kernel}" for kernel in ("sage", "sage_hub"))
"""Attention kernels that round what they are given to 8 bits."""


def loss(run: Run) -> Loss:
    """The weight error of all components, weighted by their parameters, and what else changes pictures."""
    error = count = 0.0
    for part in run.parts.values():
        count += part.component.numel
        error += _error(part)
    ways = [(name, way) for name, chosen in run.variants.items() for way in chosen]
    rounded = any(way in ROUNDING for _, way in ways)
    tiles = max((_pieces(run, *each) for each in ways), default=0)
    return Loss(error / count if count else 0.0, tiles, rounded, bool(run.caches))


def _pieces(run: Run, component: str, way: str) -> int:
    """How far a way cuts what a component makes into pieces, as in `Loss.tiles`: smaller tiles hold no more."""
    name, _, size = way.partition(":")
    if name != TILED:
        return 1 if name == BATCHED else 0
    usual = run.facts.trace.held(component, TILED)  # none where the library's own tile takes the whole picture
    larger = usual and run.facts.trace.held(component, way) > usual
    return 1 if larger or not size else 2


@lru_cache(maxsize=8192)
def _error(part: Part) -> float:
    return error(part.component, part.stored)


@lru_cache(maxsize=1024)
def error(component: Component, stored: Stored) -> float:
    """The error of its weights, summed over parameters: as measured where they were at hand, else as is usual.

    Rounded inputs add theirs, as errors that know nothing of each other do: normally distributed ones are assumed.
    """
    if not stored.format:
        recast = dict(stored.recast)
        return sum(DTYPES[recast[w.name]] * w.numel for w in component.weights if w.name in recast)
    measured, cast = component.error(stored.format), stored.format in CASTS
    usual = CASTS[stored.format] if cast else FORMATS[WEIGHTS_OF.get(stored.format, stored.format)].error
    inputs = 0.0 if cast else sqrt(FORMATS[stored.format].error ** 2 - usual**2)
    numbers = component.cast if cast else stored.matrices(component)
    return sum(hypot(measured.get(i, usual), inputs) * component.weights[i].numel for i in numbers)
