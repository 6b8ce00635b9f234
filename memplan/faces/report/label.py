"""A plan in a few words, as `memplan price --with` takes it: a technique once, with all its components."""

from collections.abc import Iterable
from typing import Any

from memplan.registry import EVERYTHING, JOIN
from memplan.strategy import Strategy

ON_GPU = "on_gpu"
"""The name of the strategy that changes nothing, left out beside others."""


def label(strategies: Iterable[Strategy]) -> str:
    """What a plan does beside keeping the rest on the GPU, e.g. "group_offload:transformer,stream=true + vae_tiling".

    Strategies with the same settings are named once, with all their components.
    """
    components: dict[tuple[str, str], list[str]] = {}
    for strategy in techniques(strategies):
        component: Any = getattr(strategy, "component", "")
        settings = str(strategy).partition(":")[2].removeprefix(component).lstrip(",")
        components.setdefault((strategy.name, settings), []).append(component)
    parts = (
        ":".join(filter(None, (name, ",".join(filter(None, (*own, settings))))))
        for (name, settings), own in components.items()
    )
    return JOIN.join(parts) or EVERYTHING


def techniques(strategies: Iterable[Strategy]) -> list[Strategy]:
    """Those that change something."""
    return [strategy for strategy in strategies if strategy.name != ON_GPU]
