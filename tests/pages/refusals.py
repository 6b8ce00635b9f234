"""The sentences with which a strategy refuses, read from its source: what refuses() returns, and what it calls."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from inspect import getattr_static, getsource, unwrap
from textwrap import dedent
from typing import Any

from memplan.strategy import Strategy

OURS = "memplan.strategies"
UNKNOWN = object()
OPEN = "…"
"""Stands for what only a run decides."""
FACTS = ("lack", "failure", "lacking")
"""What tells a sentence that a probe found: of the model, of a call, of the machine."""
OPTIONAL = re.compile(r"(?<=[\w}])\{[^}]*\}")
"""A part of a sentence that is there in some runs: it begins where a word has just ended."""
WORDS = 4
"""The fewest of a sentence: shorter strings are parts of one."""


def refusals(cls: type[Strategy]) -> tuple[list[str], bool]:
    """The sentences in the order of the code, and whether it passes on others that a probe found."""
    found = _Reader(cls)
    found.read("refuses", cls)
    return list(dict.fromkeys(filter(_whole, (OPTIONAL.sub("", one) for one in found.sentences)))), found.passes_on


def _whole(sentence: str) -> bool:
    return len(re.sub(r"\{.*?\}", "x", sentence).split()) >= WORDS


class _Constants:
    """Stands for a strategy of which only the class is known: it has its constants, and no settings."""

    def __init__(self, cls: type[Any]) -> None:
        self._cls, self._settings = cls, {field.name for field in fields(cls)}

    def __getattr__(self, name: str) -> Any:
        value = getattr_static(self._cls, name)
        if name in self._settings or callable(value) or isinstance(value, property | cached_property | classmethod):
            raise AttributeError(name)
        return value


@dataclass(frozen=True)
class _Code:
    """A function's code, and what its names mean: those of its module, `self`, and what it assigns once."""

    body: ast.FunctionDef
    names: dict[str, Any]
    owner: type[Any]

    @cached_property
    def assigned(self) -> dict[str, list[ast.expr]]:
        """The values of each local name, also of several that are assigned at once."""
        found: dict[str, list[ast.expr]] = {}
        for node in (node for node in ast.walk(self.body) if isinstance(node, ast.Assign)):
            for target in node.targets:
                both = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
                pairs = zip(target.elts, node.value.elts, strict=True) if both else [(target, node.value)]  # type: ignore[attr-defined]
                for name, value in pairs:
                    found.setdefault(ast.unparse(name), []).append(value)
        return found

    def known(self, expression: ast.expr) -> Any:
        """What `expression` is, or UNKNOWN where a run decides it."""
        try:
            return eval(compile(ast.Expression(expression), "<strategy>", "eval"), self.names)
        except Exception:
            return UNKNOWN


class _Reader:
    """Follows a function of a strategy to the strings that it returns."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls
        self.sentences: list[str] = []
        self.passes_on = False
        self._seen: set[Any] = set()

    def read(self, name: str, above: type[Any], *, after: bool = False) -> None:
        """The method or property `name` of the strategy, as seen from `above` of its classes, or from the next one."""
        line = list(self.cls.__mro__)
        owner = next((owner for owner in line[line.index(above) + after :] if name in vars(owner)), None)
        if owner is not None:
            self._function(vars(owner)[name], owner)

    def _function(self, function: Any, owner: type[Any], given: Sequence[Any] = ()) -> None:
        """Reads it; `given` are its arguments, UNKNOWN where a run decides them."""
        function = getattr(function, "fget", None) or getattr(function, "__func__", function)
        function = unwrap(function)
        if function in self._seen or not getattr(function, "__module__", "").startswith(OURS):
            return
        self._seen.add(function)
        (body,) = ast.parse(dedent(getsource(function))).body
        if not isinstance(body, ast.FunctionDef):
            return
        code = _Code(body, dict(function.__globals__), owner)
        takes = [argument.arg for argument in body.args.args if argument.arg not in ("self", "cls")]
        for name in (*takes, *code.assigned):
            code.names.pop(name, None)
        known = zip(takes, given, strict=False)
        constants = _Constants(self.cls)
        code.names.update({name: value for name, value in known if value is not UNKNOWN}, self=constants, cls=constants)
        found = (n for n in ast.walk(body) if isinstance(n, ast.Return | ast.Yield | ast.YieldFrom) and n.value)
        for node in sorted(found, key=lambda node: node.lineno):
            assert node.value is not None
            self._returned(node.value, code)

    def _returned(self, node: ast.expr, code: _Code) -> None:
        """What `node` can be, where it is what a function returns."""
        match node:
            case ast.Constant(value=str()) | ast.JoinedStr():
                self.sentences.append(_text(node, code))
            case ast.IfExp():
                self._each([node.body, node.orelse], code)
            case ast.BoolOp():
                self._each(node.values, code)
            case ast.GeneratorExp() | ast.ListComp():
                self._returned(node.elt, code)
            case ast.Tuple() | ast.List():
                self._each(node.elts, code)
            case ast.Name() if node.id in code.assigned:
                self._each(code.assigned.pop(node.id), code)
            case ast.Name() if callable(code.names.get(node.id)):
                self._function(code.names[node.id], code.owner)
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                self._attribute(node.attr, code)
            case ast.Call():
                self._call(node, code)
            case _:
                pass

    def _each(self, nodes: list[ast.expr], code: _Code) -> None:
        for node in nodes:
            self._returned(node, code)

    def _attribute(self, name: str, code: _Code) -> None:
        try:
            constant = getattr(code.names["self"], name)
        except AttributeError:
            self.read(name, self.cls)
        else:
            self.sentences += [constant] if isinstance(constant, str) else []

    def _call(self, node: ast.Call, code: _Code) -> None:
        match node.func:
            case ast.Name(id="next" | "filter" | "map"):
                self._each(node.args, code)
            case ast.Name(id=name):
                self._function(code.names.get(name), code.owner, [code.known(arg) for arg in node.args])
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name):
                self.read(name, code.owner, after=True)
            case ast.Attribute(attr=name) if name in FACTS:
                self.passes_on = True
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                self._returned(node.func, code)
            case _:
                pass


# ---- text ------------------------------------------------------------------------------------------------------------
def _text(node: ast.expr, code: _Code) -> str:
    """The string, with the names of what only a run decides."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if not isinstance(node, ast.JoinedStr):
        return _filled(node, code)
    values = ((part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values)
    return "".join(_text(value, code) if isinstance(value, ast.Constant) else _filled(value, code) for value in values)


def _filled(node: ast.expr, code: _Code) -> str:
    known = code.known(node)
    if known is not UNKNOWN:
        return str(known)
    match node:
        case ast.Name() if [type(v) for v in code.assigned.get(node.id, ())] in ([ast.JoinedStr], [ast.Constant]):
            return _text(code.assigned[node.id][0], code)
        case ast.Attribute(attr="name", value=ast.Name(id=name) | ast.Attribute(attr=name)):
            return _open(name)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _open(name)
        case _:
            return OPEN


def _open(name: str) -> str:
    words = name.strip("_").replace("_", " ")
    return f"{{{words}}}"
