"""Which layers of a quantized component are most worth leaving as they are."""

import re
from collections.abc import Sequence
from functools import lru_cache

from memplan.facts import Component

SPARED = 8
"""Layers that are left as they are to lower the loss, at most: a plan names each of them."""
BLOCK = re.compile(r"(?:\w+\.)*?\w+\.\d+(?=\.)")
"""The path of a block: up to the first number."""


def most_worth(component: Component, numbers: Sequence[int], form: str) -> list[str]:
    """Names to spare, the most worth first, of the weights of these numbers: those with the largest error in `form`.

    An error counts for each element, and an element takes the same room in every layer. Where no error was measured it
    is the first and the last block, which read what comes in and make what goes out.
    """
    errors = component.error(form)
    worst = sorted((i for i in numbers if i in errors), key=lambda i: -errors[i])[:SPARED]
    return [component.weights[i].module for i in worst] or _ends([component.weights[i].module for i in numbers])


def _ends(layers: list[str]) -> list[str]:
    """The first and the last block among the paths of `layers`, where those are in several."""
    blocks = list(dict.fromkeys(found[0] for found in map(BLOCK.match, layers) if found))
    return [blocks[0], blocks[-1]] if len(blocks) > SPARED // 2 else []


@lru_cache(maxsize=1024)
def absent(component: Component, names: tuple[str, ...]) -> str | None:
    """The sentence about names to spare that no module of `component` has as a whole part, or several, of its path."""
    paths = {f".{weight.module}." for weight in component.weights}
    unknown = [name for name in names if not any(f".{name}." in path for path in paths)]
    return f"spare names {', '.join(unknown)}, and {component.class_name} has no such module" if unknown else None
