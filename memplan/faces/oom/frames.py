"""A traceback as it can be asked: who ran, where, and with what in hand."""

import ast
import gc
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import dedent
from traceback import walk_tb
from types import CodeType
from typing import Any

ROOMS = (
    ("diffusers.pipelines.pipeline_utils", "DiffusionPipeline"),
    ("diffusers.modular_pipelines.modular_pipeline", "ModularPipeline"),
)
"""Where the classes of pipelines are; none is imported here, as no pipeline can be alive without."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One level of a traceback: its function, the line that ran, and its variables."""

    code: CodeType
    line: int
    variables: Mapping[str, Any]

    @property
    def function(self) -> str:
        """The function's name."""
        return self.code.co_name

    @property
    def owner(self) -> Any:
        """The object whose method it is; None for a function."""
        return self.variables.get("self")


def frames(error: BaseException) -> list[Frame]:
    """From the outermost to the one that raised."""
    return [Frame(f.f_code, line, f.f_locals) for f, line in walk_tb(error.__traceback__)]


def is_pipeline(value: Any) -> bool:
    """Whether `value` is a pipeline of diffusers."""
    return _of(type(value), _kinds())


def alive() -> list[Any]:
    """The pipelines that this process has, in the order in which the collector knows them."""
    kinds = _kinds()
    known: dict[type, bool] = {}
    found = []
    for thing in gc.get_objects() if kinds else ():
        kind = type(thing)
        if kind not in known:
            known[kind] = _of(kind, kinds)
        if known[kind]:
            found.append(thing)
    return found


def _kinds() -> list[type]:
    found = (getattr(sys.modules.get(room), name, None) for room, name in ROOMS)
    return [kind for kind in found if kind is not None]


def _of(kind: type, kinds: Sequence[type]) -> bool:
    return any(known in kind.__mro__ for known in kinds)


def is_module(value: Any) -> bool:
    """Whether `value` is a module of torch."""
    kind = getattr(sys.modules.get("torch.nn.modules.module"), "Module", None)
    return kind is not None and kind in type(value).__mro__


# ---- the denoising loop ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Loop:
    """A loop over timesteps in a frame's function, and which turn of how many runs; None where it cannot be told."""

    first: int
    last: int
    turn: int | None
    turns: int | None


def loop(frame: Frame) -> Loop | None:
    """The first loop over timesteps in the source of the frame's function, in lines of its file; None without one."""
    try:
        lines, first = inspect.getsourcelines(frame.code)
        tree = ast.parse(dedent("".join(lines)))
    except (OSError, SyntaxError, TypeError):
        return None
    for node in ast.walk(tree):
        steps = list(_steps(node.iter)) if isinstance(node, ast.For) else []
        if isinstance(node, ast.For) and steps:
            turn = _turn(node, frame.variables)
            start, end = (first + line - 1 for line in (node.lineno, node.end_lineno or node.lineno))
            return Loop(start, end, turn, _length(steps[0], frame.variables))
    return None


def _steps(over: ast.expr) -> Iterator[ast.expr]:
    """The variables and attributes that are called after timesteps in what a loop goes over."""
    for node in ast.walk(over):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if "timesteps" in name and isinstance(node, ast.Name | ast.Attribute):
            yield node


def _turn(node: ast.For, variables: Mapping[str, Any]) -> int | None:
    """The loop's counter, from 1 on, where it has one."""
    target = node.target.elts[0] if isinstance(node.target, ast.Tuple) else node.target
    counter = variables.get(target.id) if isinstance(target, ast.Name) else None
    return counter + 1 if type(counter) is int else None


def _length(steps: ast.expr, variables: Mapping[str, Any]) -> int | None:
    try:
        return len(_value(steps, variables))
    except (AttributeError, KeyError, TypeError):
        return None


def _value(node: ast.expr, variables: Mapping[str, Any]) -> Any:
    """What a variable, or an attribute of one, holds. Raises KeyError or AttributeError."""
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, variables), node.attr)
    return variables[node.id] if isinstance(node, ast.Name) else None
