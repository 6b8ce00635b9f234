"""Changes a script's tree: what goes, what comes in its place, and where the comments of what goes stay."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import libcst as cst

from memplan.faces.patching.arguments import with_argument, without
from memplan.faces.patching.emptied import is_left_empty, without_else

Statement = cst.SimpleStatementLine | cst.BaseCompoundStatement


@dataclass(frozen=True, eq=False)
class Block:
    """Statements between comments; that before them may take several lines."""

    begin: Sequence[str]
    statements: Sequence[cst.BaseStatement]
    end: str


@dataclass(eq=False)
class Edits:
    """By node of the original tree: what is set and taken out of calls, which small statements go, what is added.

    `moves` keep the arguments given there, and go without any; `margins` are how much deeper than its statement a call
    stands. `returns` are statements that return a pipeline which is to have a name first. `unnamed` are names that
    imports are to bring in no longer, but for others.
    """

    margins: dict[cst.Call, str] = field(default_factory=dict)
    sets: dict[cst.Call, dict[str, str]] = field(default_factory=dict)
    unset: dict[cst.Call, tuple[str, ...]] = field(default_factory=dict)
    moves: Mapping[cst.Call, tuple[cst.Arg, ...]] = field(default_factory=dict)
    dropped: set[cst.CSTNode] = field(default_factory=set)
    before: dict[cst.CSTNode, list[Block]] = field(default_factory=dict)
    after: dict[cst.CSTNode, list[Block]] = field(default_factory=dict)
    imports: dict[cst.CSTNode, list[cst.Import | cst.ImportFrom]] = field(default_factory=dict)
    returns: dict[cst.CSTNode, str] = field(default_factory=dict)
    unnamed: dict[cst.ImportFrom, frozenset[str]] = field(default_factory=dict)


def edited(module: cst.Module, edits: Edits) -> cst.Module:
    """The script with all of them made."""
    return module.visit(_Editor(edits))


class _Editor(cst.CSTTransformer):
    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self._edits = edits

    # ---- calls ----
    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        edits, call = self._edits, updated_node
        if original_node in edits.moves:
            return _moved(call, edits.moves[original_node])
        for name, code in edits.sets.get(original_node, {}).items():
            call = with_argument(call, name, code, edits.margins.get(original_node, ""))
        return without(call, edits.unset.get(original_node, ()))

    def leave_ImportFrom(self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom) -> cst.ImportFrom:
        gone = self._edits.unnamed.get(original_node)
        if gone is None or isinstance(updated_node.names, cst.ImportStar):
            return updated_node
        names = [alias for alias in updated_node.names if alias.evaluated_alias or alias.evaluated_name not in gone]
        names = [alias for alias in names if alias.evaluated_alias not in gone]
        return updated_node.with_changes(
            names=[*names[:-1], names[-1].with_changes(comma=updated_node.names[-1].comma)]
        )

    # ---- statements ----
    def leave_If(self, original_node: cst.If, updated_node: cst.If) -> cst.If:
        return without_else(original_node, updated_node)

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        body, left = self._body(original_node.body, updated_node.body)
        return updated_node.with_changes(body=body, footer=[*_stripped(left), *updated_node.footer])

    def leave_Module(self, original_node: cst.Module, updated_node: cst.Module) -> cst.Module:
        body, left = self._body(original_node.body, updated_node.body)
        return updated_node.with_changes(body=body, footer=[*_stripped(left), *updated_node.footer])

    def _body(
        self, before: Iterable[cst.CSTNode], after: Iterable[cst.CSTNode]
    ) -> tuple[list[cst.BaseStatement], list[cst.EmptyLine]]:
        """The statements, and the comments that are left for the end of the block."""
        made: list[cst.BaseStatement] = []
        waiting: list[cst.EmptyLine] = []
        for old, new in zip(before, after, strict=True):
            for block in self._edits.before.get(old, []):
                made += _lines(block, waiting)
                waiting = [_comment(block.end)]
            kept, comments = self._kept(cast("Statement", old), cast("Statement", new))
            for statement in kept[:1]:
                made.append(_led(statement, waiting))
                waiting = []
            waiting += comments
            for block in self._edits.after.get(old, []):
                made += _lines(block, waiting)
                waiting = [_comment(block.end)]
            made += [cst.SimpleStatementLine([small]) for small in self._edits.imports.get(old, [])]
            for statement in kept[1:]:
                made.append(_led(statement, waiting))
                waiting = []
        return made, waiting

    def _kept(self, old: Statement, new: Statement) -> tuple[list[Statement], list[cst.EmptyLine]]:
        """What is left of a statement; of one that goes, its comments."""
        if is_left_empty(old, new):
            return [], [*new.leading_lines, *_inside(part for part in new.children if part not in new.leading_lines)]
        if not isinstance(old, cst.SimpleStatementLine) or not isinstance(new, cst.SimpleStatementLine):
            return [new], []
        pairs = zip(old.body, new.body, strict=True)
        small = [one for was, one in pairs if was not in self._edits.dropped]
        if not small:
            return [], [*new.leading_lines, *_inside((*old.body, old.trailing_whitespace))]
        new = new.with_changes(leading_lines=[*new.leading_lines, *_lost(old, new)])
        if old in self._edits.returns:
            return _named(new, self._edits.returns[old]), []
        last = small[-1].with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
        return [new.with_changes(body=[*small[:-1], last]) if len(small) < len(new.body) else new], []


def _lines(block: Block, comments: Sequence[cst.EmptyLine]) -> list[cst.BaseStatement]:
    """A block's statements, with comments and its own first one before them."""
    first, *rest = block.statements
    return [_led(cast("Statement", first), [*comments, *map(_comment, block.begin)]), *rest]


def _lost(old: cst.SimpleStatementLine, new: cst.SimpleStatementLine) -> list[cst.EmptyLine]:
    """The comments that went with what was taken out of a line."""
    left = Counter(comment.value for comment in _comments(old)) - Counter(comment.value for comment in _comments(new))
    return [_comment(text) for text in left.elements()]


def _moved(call: cst.Call, kept: tuple[cst.Arg, ...]) -> cst.BaseExpression:
    """What is moved, or with arguments that are left the call with those alone."""
    assert isinstance(call.func, cst.Attribute)
    if kept:
        last = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
        return call.with_changes(args=[*kept[:-1], last])
    inner = call.func.value
    around = {"lpar": [*call.lpar, *inner.lpar], "rpar": [*inner.rpar, *call.rpar]}
    return inner.with_changes(**around)


def _named(line: cst.SimpleStatementLine, text: str) -> list[Statement]:
    """A line that returns a value as two, of which the first gives it a name."""
    (small,) = (one for one in line.body if isinstance(one, cst.Return))
    assert small.value is not None
    target, value = (cst.parse_expression(text) for _ in range(2))
    assert isinstance(target, cst.Name | cst.Attribute | cst.Subscript)
    assign = cst.Assign([cst.AssignTarget(target)], small.value)
    return [line.with_changes(body=[assign]), cst.SimpleStatementLine([cst.Return(value)])]


def _led(statement: Statement, lines: Sequence[cst.EmptyLine]) -> Statement:
    """The statement with lines before its own."""
    own = statement.leading_lines
    before = _stripped(lines) if own and own[0].comment is None else lines
    return statement.with_changes(leading_lines=[*before, *own])


def _stripped(lines: Sequence[cst.EmptyLine]) -> list[cst.EmptyLine]:
    """The lines up to the last comment among them."""
    comments = [at for at, line in enumerate(lines) if line.comment]
    return list(lines[: comments[-1] + 1]) if comments else []


def _comments(node: cst.CSTNode) -> Iterator[cst.Comment]:
    """Those inside of a node."""
    for child in node.children:
        if isinstance(child, cst.Comment):
            yield child
        yield from _comments(child)


def _inside(nodes: Iterable[cst.CSTNode]) -> list[cst.EmptyLine]:
    """The comments inside of nodes, each on a line of its own."""
    return [_comment(found.value) for node in nodes for found in _comments(node)]


def _comment(text: str) -> cst.EmptyLine:
    return cst.EmptyLine(comment=cst.Comment(text))
