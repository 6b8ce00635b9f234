"""Loss of precision by storage format and by tiles."""

from functools import lru_cache

from memplan.facts import TILED, Component
from memplan.run import Run, Stored
from memplan.simulator.bill import Loss
from memplan.simulator.formats import CASTS, FORMATS

DTYPES = {"bfloat16": 0.00166, "float16": 0.000208, "float32": 2.54e-8}
"""Relative root-mean-square error of normally distributed weights in another dtype; a test measures them."""


def loss(run: Run) -> Loss:
    """The weight error of all components, weighted by their parameters, and whether pictures are cut into tiles."""
    error = count = 0.0
    for component in run.facts.model.components:
        count += component.numel
        error += _error(component, run.stored(component.name))
    ways = [way.partition(":") for chosen in run.variants.values() for way in chosen]
    tiles = max((2 if size else 1 for name, _, size in ways if name == TILED), default=0)
    return Loss(error / count if count else 0.0, tiles)


@lru_cache(maxsize=256)
def _error(component: Component, stored: Stored) -> float:
    """The error of its weights, summed over parameters."""
    if not stored.format:
        recast = dict(stored.recast)
        return sum(DTYPES[recast[w.name]] * w.numel for w in component.weights if w.name in recast)
    if stored.format in CASTS:
        return CASTS[stored.format] * component.cast_numel
    return FORMATS[stored.format].error * sum(component.weights[i].numel for i in stored.matrices(component))
