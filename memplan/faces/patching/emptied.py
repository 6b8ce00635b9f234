"""Branches of which nothing is left once their statements have gone."""

import libcst as cst
from libcst import matchers as m

ASKS = m.Attribute(attr=m.Name("is_available"))
"""A call that only asks, as torch.cuda.is_available() does."""
DOES = m.Call(func=~ASKS) | m.NamedExpr() | m.Await()
"""What may do something besides."""


def is_left_empty(old: cst.CSTNode, new: cst.CSTNode) -> bool:
    """Whether a statement that was `old` does nothing any more: an if that only asks, or a try of nothing."""
    if isinstance(old, cst.If) and isinstance(new, cst.If):
        return _only_asks(old) and _is_empty(new)
    if not isinstance(old, cst.Try) or not isinstance(new, cst.Try):
        return False
    parts = [new.body, *(part.body for part in (*new.handlers, new.orelse, new.finalbody) if part is not None)]
    return all(map(_has_nothing, parts))


def without_else(old: cst.If, new: cst.If) -> cst.If:
    """The branch without an else of which nothing is left, not even a comment."""
    rest, before = new.orelse, old.orelse
    emptied = isinstance(rest, cst.Else) and _has_nothing(rest.body) and isinstance(before, cst.Else)
    if not emptied or rest is None or m.findall(rest, m.Comment()) or _has_nothing(new.body):
        return new
    return new.with_changes(orelse=None)


def _only_asks(branch: cst.If) -> bool:
    rest = branch.orelse
    return not m.findall(branch.test, DOES) and (not isinstance(rest, cst.If) or _only_asks(rest))


def _is_empty(branch: cst.If | cst.Else) -> bool:
    after = branch.orelse if isinstance(branch, cst.If) else None
    return _has_nothing(branch.body) and (after is None or _is_empty(after))


def _has_nothing(body: cst.BaseSuite) -> bool:
    return isinstance(body, cst.IndentedBlock) and not body.body
