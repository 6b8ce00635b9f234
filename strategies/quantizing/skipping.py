"""Which layers the loaders of the libraries leave as they are, by the names that they are given."""

import re

from memplan.facts import BY_WEIGHT, Component

BOUNDARY = r"(?:(?<=\.)|(?=\.|$))"


def skipped(component: Component, lookup: str, spare: tuple[str, ...]) -> tuple[str, ...] | None:
    """Names with which the loader of the component's library leaves just what `spare` names.

    None are needed where its own rule does so: transformers' holds only as long as no name is given. The value is None
    where no names do, because the libraries take some for parts of others.
    """
    layers = _layers(component, ())
    kept = layers - _layers(component, spare)
    if kept == layers - _layers(component, dict(component.spared).get(lookup, ())):
        return ()
    choices = (spare, tuple(sorted(kept)))
    return next((names for names in choices if kept == _left(component, lookup, layers, names)), None)


def _layers(component: Component, spare: tuple[str, ...]) -> set[str]:
    """Paths of the linear layers that are not spared."""
    return {component.weights[number].module for number in component.matrices(spare)}


def _left(component: Component, lookup: str, layers: set[str], names: tuple[str, ...]) -> set[str]:
    """Those of `layers` that the loader leaves, as the library decides it.

    `should_convert_module` in transformers/quantizers/quantizers_utils.py; `check_if_quantized_param` and
    `_replace_with_bnb_linear` in diffusers/quantizers.
    """
    by_weight = lookup == BY_WEIGHT
    if component.library == "transformers":
        whole = {path: f"{path}.weight" if by_weight else path for path in layers}
        return {p for p, w in whole.items() if any(re.match(f"(?:{n}){BOUNDARY}", w) or w.endswith(n) for n in names)}
    if by_weight:
        return {path for path in layers if any(f"{name}." in f"{path}." for name in names)}
    named = {path for path in layers if path in names or path.rpartition(".")[2] in names}
    return named | {path for path in layers if any(f"{name}." in path for name in names)}
