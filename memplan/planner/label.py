"""A plan in a few words, as `memplan price --with` takes it: a technique once, with all its components."""

from collections.abc import Iterable
from typing import Any

from memplan.facts import Facts
from memplan.registry import EVERYTHING, JOIN, given
from memplan.strategy import Strategy, written

ON_GPU = "on_gpu"
"""The name of the strategy that changes nothing, left out beside others."""


def label(strategies: Iterable[Strategy], facts: Facts) -> str:
    """What a plan does beside keeping the rest on the GPU, e.g. "group_offload:transformer,stream=true + vae_tiling".

    Strategies with the same settings are named once, with all their components. Typed for the same `facts` it is the
    same plan: what is read from them is left out.
    """
    components: dict[tuple[str, str], list[str]] = {}
    for strategy in techniques(strategies):
        component: Any = getattr(strategy, "component", "")
        named = given(strategy, facts).items()
        settings = ",".join(f"{name}={written(value)}" for name, value in named if name != "component")
        components.setdefault((strategy.name, settings), []).append(component)
    parts = (
        ":".join(filter(None, (name, ",".join(filter(None, (*own, settings))))))
        for (name, settings), own in components.items()
    )
    return JOIN.join(parts) or EVERYTHING


def techniques(strategies: Iterable[Strategy]) -> list[Strategy]:
    """Those that change something."""
    return [strategy for strategy in strategies if strategy.name != ON_GPU]
