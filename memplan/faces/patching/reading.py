"""A script as a tree that keeps every space and comment, and questions to it: where, in what, and what a name means."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

import libcst as cst
from libcst.metadata import (
    MetadataWrapper,
    ParentNodeProvider,
    PositionProvider,
    QualifiedNameProvider,
    ScopeProvider,
)

from memplan.faces.patching.refuse import NotPatched, refused

Node = TypeVar("Node", bound=cst.CSTNode)
Line = cst.SimpleStatementLine | cst.BaseCompoundStatement


@dataclass(frozen=True, eq=False)
class Script:
    """A parsed script. `shifts` are lines taken out before it was parsed: the line they stood at, and how many."""

    name: str
    wrapper: MetadataWrapper
    shifts: tuple[tuple[int, int], ...] = ()

    @classmethod
    def read(cls, name: str, source: bytes, shifts: tuple[tuple[int, int], ...] = ()) -> "Script":
        """The script `name`. Raises NotPatched, with the line, for what is no Python."""
        try:
            module = cst.parse_module(source)
        except cst.ParserSyntaxError as error:
            cure = "write magics and shell commands of a notebook as Python, or leave them out"
            raise refused(name, _line(source) or error.editor_line, "this is not Python", cure) from None
        except (UnicodeDecodeError, LookupError, ValueError) as error:
            raise NotPatched(f"{name} cannot be read: {error}") from None
        return cls(name, MetadataWrapper(module, unsafe_skip_copy=True), shifts)

    @property
    def module(self) -> cst.Module:
        """The tree."""
        return self.wrapper.module

    # ---- nodes ----
    @cached_property
    def nodes(self) -> tuple[cst.CSTNode, ...]:
        """All of them, in the order in which they are written."""
        found: list[cst.CSTNode] = []
        waiting: list[cst.CSTNode] = [self.module]
        while waiting:
            node = waiting.pop()
            found.append(node)
            waiting.extend(reversed(node.children))
        return tuple(found)

    def all(self, kind: type[Node]) -> Iterator[Node]:
        """Those of one kind."""
        return (node for node in self.nodes if isinstance(node, kind))

    def parent(self, node: cst.CSTNode) -> cst.CSTNode:
        """What a node is part of."""
        return cast("cst.CSTNode", self._parents[node])

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """What it is part of, from the innermost."""
        while node is not self.module:
            node = self.parent(node)
            yield node

    def within(self, node: cst.CSTNode, *kinds: type[cst.CSTNode]) -> cst.CSTNode | None:
        """The innermost ancestor of one of these kinds; None where there is none."""
        return next((found for found in self.ancestors(node) if isinstance(found, kinds)), None)

    def home(self, node: cst.CSTNode) -> cst.CSTNode | None:
        """The function that a node is in; None at the top."""
        return self.within(node, cst.FunctionDef, cst.Lambda)

    def statement(self, node: cst.CSTNode) -> Line:
        """The innermost statement around a node that has lines of its own."""
        around = (node, *self.ancestors(node))
        return next(found for found in around if isinstance(found, cst.SimpleStatementLine | cst.BaseCompoundStatement))

    def small(self, node: cst.CSTNode) -> cst.BaseSmallStatement | None:
        """The statement around a node that may share its line with others."""
        return next((found for found in self.ancestors(node) if isinstance(found, cst.BaseSmallStatement)), None)

    def line(self, node: cst.CSTNode) -> int:
        """The number of its first line in the file."""
        found: int = self._positions[node].start.line
        return found + sum(count for line, count in self.shifts if line < found)

    def lines(self, node: cst.CSTNode) -> range:
        """The numbers of the lines that it takes, of the script as it was parsed."""
        found = self._positions[node]
        return range(found.start.line, found.end.line + 1)

    def margin(self, call: cst.Call) -> str:
        """How much deeper than its statement the line stands on which the arguments of a call begin."""
        last = call.func.attr if isinstance(call.func, cst.Attribute) else call.func
        lines = self.module.code.splitlines()
        own, whole = (lines[self._positions[node].start.line - 1] for node in (last, self.statement(call)))
        own, whole = (line[: len(line) - len(line.lstrip())] for line in (own, whole))
        return own.removeprefix(whole)

    def text(self, node: cst.CSTNode) -> str:
        """The code of a node."""
        return self.module.code_for_node(node)

    # ---- names ----
    def qualified(self, node: cst.CSTNode) -> str:
        """The full name of what is imported, as "diffusers.FluxPipeline.from_pretrained"; "" for anything else."""
        names = self._qualified.get(node, set())
        names = names() if callable(names) else names
        return next((found.name for found in names if found.source.name == "IMPORT"), "")

    def assignments(self, name: cst.CSTNode, text: str) -> frozenset[Any]:
        """What gives the name `text` its value where `name` stands."""
        scope = self._scopes.get(name)
        return frozenset(scope[text]) if scope is not None else frozenset()

    def same(self, one: cst.CSTNode, other: cst.CSTNode) -> bool:
        """Whether two expressions of names, attributes and items mean the same object."""
        if one is other:
            return True
        if self.text(one) != self.text(other):
            return False
        roots = root(one), root(other)
        if roots[0] is None or roots[1] is None:
            return False
        if roots[0].value == "self":
            return self.within(one, cst.ClassDef) is self.within(other, cst.ClassDef)
        name = roots[0].value
        found = self.assignments(roots[0], name), self.assignments(roots[1], name)
        return bool(found[0] & found[1]) or found[0] == found[1]

    def refuse(self, node: cst.CSTNode, what: str, cure: str) -> NotPatched:
        """The error for the line of a node."""
        return refused(self.name, self.line(node), what, cure)

    @property
    def _parents(self) -> Any:
        return self._metadata[ParentNodeProvider]

    @property
    def _positions(self) -> Any:
        return self._metadata[PositionProvider]

    @property
    def _scopes(self) -> Any:
        return self._metadata[ScopeProvider]

    @property
    def _qualified(self) -> Any:
        return self._metadata[QualifiedNameProvider]

    @cached_property
    def _metadata(self) -> Any:
        """All that is asked of the tree, in one go."""
        return self.wrapper.resolve_many((ParentNodeProvider, PositionProvider, ScopeProvider, QualifiedNameProvider))


def _line(source: bytes) -> int:
    """The line at which Python itself gives up; 0 where it does not."""
    try:
        ast.parse(source)
    except SyntaxError as error:
        return error.lineno or 0
    return 0


def root(node: cst.CSTNode) -> cst.Name | None:
    """The name that a chain of attributes and constant items starts with; None for any other expression."""
    while isinstance(node, cst.Attribute | cst.Subscript):
        node = node.value
    return node if isinstance(node, cst.Name) else None


def method(node: cst.CSTNode) -> str:
    """The last name of what a call calls; "" where that has none."""
    called = node.func if isinstance(node, cst.Call) else node
    if isinstance(called, cst.Attribute):
        return called.attr.value
    return called.value if isinstance(called, cst.Name) else ""


def argument(call: cst.Call, name: str, position: int | None = None) -> cst.BaseExpression | None:
    """The value given for `name`, or at `position` where arguments have no names."""
    for at, given in enumerate(call.args):
        named = given.keyword is not None and given.keyword.value == name
        if named or (at == position and given.keyword is None and not given.star):
            return given.value
    return None
