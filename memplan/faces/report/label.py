"""A plan in a few words: one word per technique, then the components it is for, then its settings."""

from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any

from memplan.faces.report.layout import TIE
from memplan.strategy import Strategy

EVERYTHING = "everything on the GPU"
ON_GPU = "on_gpu"
"""The name of the strategy that changes nothing, left out beside others."""


def label(strategies: Iterable[Strategy]) -> str:
    """What a plan does beside keeping the rest on the GPU, e.g. "group_offload:transformer (stream) + vae_tiling:vae".

    Strategies with the same settings are named once, with all their components.
    """
    components: dict[str, list[str]] = {}
    settings: dict[str, str] = {}
    for strategy in strategies:
        if strategy.name == ON_GPU:
            continue
        key = f"{strategy.name} {_settings(strategy)}"
        components.setdefault(key, []).extend(_component(strategy))
        settings[key] = _settings(strategy)
    parts = [_part(key.split()[0], names, settings[key]) for key, names in components.items()]
    return " + ".join(parts) or EVERYTHING


def plain(strategies: Iterable[Strategy]) -> str:
    """The label where nothing is wrapped."""
    return label(strategies).replace(TIE, " ")


def _part(name: str, components: list[str], settings: str) -> str:
    where = f":{','.join(components)}" if components else ""
    tied = settings.replace(" ", TIE)
    return f"{name}{where} ({tied})" if settings else f"{name}{where}"


def _component(strategy: Strategy) -> list[str]:
    component: Any = getattr(strategy, "component", None)
    return [component] if isinstance(component, str) else []


def _settings(strategy: Strategy) -> str:
    """Every setting that is not the default: a switch by its name, the rest as name=value."""
    shown: list[str] = []
    for field in fields(strategy):  # type: ignore[arg-type]
        value = getattr(strategy, field.name)
        known = field.default is not MISSING and value == field.default
        if field.name == "component" or known or isinstance(value, tuple):
            continue
        shown.append(field.name if value is True else f"{field.name}={value}")
    return ", ".join(shown)
