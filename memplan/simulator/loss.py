"""Loss of precision by storage format and by tiles."""

from memplan.facts import TILED
from memplan.run import Run
from memplan.simulator.bill import Loss
from memplan.simulator.formats import FORMATS

WEIGHT_ERROR = {"float8_e4m3fn": 0.0265, "float8_e5m2": 0.0530}
"""Relative root-mean-square error of normally distributed weights rounded to each format; a test measures them."""


def loss(run: Run) -> Loss:
    """The weight error of all components, weighted by their parameters, and whether pictures are cut into tiles."""
    error = count = 0.0
    for component in run.facts.model.components:
        count += component.numel
        stored = run.stored(component.name)
        if stored.format in WEIGHT_ERROR:
            error += WEIGHT_ERROR[stored.format] * component.cast_numel
        elif stored.format:
            numel = sum(component.weights[i].numel for i in component.matrices(stored.spared))
            error += FORMATS[stored.format].error * numel
    ways = [way.partition(":") for chosen in run.variants.values() for way in chosen]
    tiles = max((2 if size else 1 for name, _, size in ways if name == TILED), default=0)
    return Loss(error / count if count else 0.0, tiles)
