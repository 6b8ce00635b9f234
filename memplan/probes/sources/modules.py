"""Modules without a pipeline: one, or several by name, as a pipeline that calls each of them once."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map

from memplan.errors import BadInput

ONLY = "model"
"""The name of a module that comes alone."""


class Modules:
    """A pipeline in miniature: a call copies its arguments to the device and runs the modules one after the other.

    Subclasses are made by `as_pipeline`, one for each set of modules, so that their call has a signature of its own.
    """

    _exclude_from_cpu_offload: tuple[str, ...] = ()
    """What diffusers' pipelines never offload; here none."""

    def __init__(self, parts: Mapping[str, torch.nn.Module]) -> None:
        """A pipeline of `parts`, each an attribute by its name."""
        self._names = tuple(parts)
        vars(self).update(parts)

    @property
    def components(self) -> dict[str, torch.nn.Module]:
        """The modules by name, in order."""
        return {name: getattr(self, name) for name in self._names}

    def run(self, arguments: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """What each module that is given arguments returns."""
        here = tree_map(lambda value: value.clone() if isinstance(value, torch.Tensor) else value, dict(arguments))
        return {name: getattr(self, name)(**here[name]) for name in self._names if name in here}


def as_pipeline(source: Any) -> Any:
    """`source` itself, or modules as a pipeline; the modules are those given, not copies.

    A single module is called with the arguments of its forward; of several, each named in the call is called with the
    arguments that it is given there. Raises BadInput for a table that holds something else than modules by name.
    """
    if isinstance(source, torch.nn.Module):
        parameters = tuple(inspect.signature(source.forward).parameters.values())
        return _class(type(source).__name__, parameters, ONLY)({ONLY: source})
    if not isinstance(source, Mapping):
        return source
    for name, part in source.items():
        if not (isinstance(name, str) and name.isidentifier() and isinstance(part, torch.nn.Module)):
            raise BadInput(f"{name!r} is a {type(part).__name__}: give a table of modules by name.")
    if not source:
        raise BadInput("the table of modules is empty: give at least one.")
    kind = inspect.Parameter.KEYWORD_ONLY
    return _class("Modules", tuple(inspect.Parameter(name, kind, default=None) for name in source), None)(source)


def _check(module: torch.nn.Module, name: str, value: Any) -> None:
    """Raises BadInput for arguments of a module that are not given by name."""
    if not isinstance(value, Mapping):
        first = next(iter(inspect.signature(module.forward).parameters), "input")
        by_name = f'give the arguments of its forward() by name, as in {name}={{"{first}": …}}'
        raise BadInput(f"{name} is a {type(value).__name__}: {by_name}")


def _class(name: str, parameters: tuple[inspect.Parameter, ...], only: str | None) -> type[Modules]:
    """A class whose call takes `parameters`: those of the `only` module, or a table for each module."""

    def call(self: Modules, **arguments: Any) -> dict[str, Any]:
        given = {only: arguments} if only else {key: value for key, value in arguments.items() if value is not None}
        for key, value in given.items():
            _check(getattr(self, key), key, value)
        return self.run(given)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    named = [p for p in parameters if p.kind is not p.VAR_POSITIONAL]
    call.__signature__ = inspect.Signature([own, *named])  # type: ignore[attr-defined]
    return type(name, (Modules,), {"__call__": call})
