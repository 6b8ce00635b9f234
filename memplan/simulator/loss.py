"""Loss of precision by storage format."""

from memplan.run import Run
from memplan.simulator.bill import Loss

WEIGHT_ERROR = {"float8_e4m3fn": 0.0265, "float8_e5m2": 0.0530}
"""Relative root-mean-square error of normally distributed weights rounded to each format; a test measures them."""


def loss(run: Run) -> Loss:
    """The weight error of all components, weighted by their parameters."""
    error = count = 0.0
    for component in run.facts.model.components:
        count += sum(w.numel for w in component.weights)
        dtype = run.stored(component.name).dtype
        if dtype is not None:
            error += WEIGHT_ERROR[dtype] * sum(component.weights[i].numel for i in component.cast)
    return Loss(error / count if count else 0.0)
