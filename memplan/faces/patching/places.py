"""Where a plan is applied in a script: after all that prepares the pipeline, and before its first call."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst

from memplan.faces.patching.decisions import OWN_LINE, Calls
from memplan.faces.patching.find import Pipeline
from memplan.faces.patching.homes import Homes
from memplan.faces.patching.moves import placed_before
from memplan.faces.patching.reading import Script, method
from memplan.faces.patching.uses import gives, used, uses

Block = cst.Module | cst.IndentedBlock


@dataclass(frozen=True, eq=False)
class Place:
    """A statement after which lines are added, or `before` which, and the call that moved the pipeline, if one did.

    One that is `split` casts the pipeline and returns it: lines are added between the two.
    """

    at: cst.CSTNode
    move: cst.Call | None = None
    before: bool = False
    split: bool = False


def place(script: Script, pipeline: Pipeline, homes: Homes, found: Calls) -> Place:
    """Where a block was before, in place of a conditional move, or after the last call that prepares the pipeline."""
    earlier = placed_before(script)
    if earlier:
        return Place(earlier[0])
    block = script.parent(pipeline.statement)
    here = [(call, _in(script, block, call)) for call, _ in found.devices or found.parts]
    for call, top in here:
        if isinstance(top, cst.If) and _is_condition(script, top, call, found):
            line = script.statement(call)
            return Place(line, call, before=uses(script, homes, found, line))
    statements = list(block.body) if isinstance(block, Block) else []
    start = statements.index(pipeline.statement)
    using = (at for at in range(start + 1, len(statements)) if uses(script, homes, found, statements[at]))
    first = next(using, len(statements))
    tops = [_in(script, block, anchor) for anchor in found.anchors]
    places = [statements.index(top) for top in tops if top is not None]
    last = max((at for at in places if start <= at < first), default=start)
    moves = [call for call, top in here if top is not None and start <= statements.index(top) <= first]
    _check_one_device(script, [(call, to) for call, to in found.devices or found.parts if call in moves])
    _check_last(script, homes, statements[last])
    _check_given(script, homes, found, statements[first:])
    for call in (one for one in moves if found.moves.get(one) and first < len(statements)):
        if statements[first] in script.ancestors(call):
            _check_cast(script, call)
            return Place(statements[first], call, split=True)
    return Place(statements[last], moves[-1] if moves else None)


def _in(script: Script, block: cst.CSTNode, node: cst.CSTNode) -> cst.BaseStatement | None:
    """The statement of `block` that `node` is in; None where it is in none, or in a definition."""
    for ancestor in (node, *script.ancestors(node)):
        if isinstance(ancestor, cst.FunctionDef | cst.ClassDef | cst.Lambda):
            return None
        if ancestor is not script.module and script.parent(ancestor) is block:
            return ancestor if isinstance(ancestor, cst.BaseStatement) else None
    return None


def _is_condition(script: Script, branch: cst.If, move: cst.Call, found: Calls) -> bool:
    """Whether a branch asks for a device, moves the pipeline to it, and places it in no other way besides."""
    asks = re.search("cuda|device|gpu|is_available|mps|xpu", script.text(branch.test), re.IGNORECASE)
    others = (one for one in found.anchors if one is not move and not isinstance(one, cst.Assign))
    return bool(asks) and not any(branch in script.ancestors(one) for one in others)


def _check_one_device(script: Script, moves: Sequence[tuple[cst.Call, cst.BaseExpression | None]]) -> None:
    """Raises NotPatched for moves to several devices."""
    texts = list(dict.fromkeys(script.text(to) for _, to in moves if to is not None))
    if len(texts) > 1:
        what = f"the pipeline is moved to one of several devices, {', '.join(texts)}"
        raise script.refuse(moves[1][0], what, "move it once, to a device that a variable names")


def _check_last(script: Script, homes: Homes, statement: cst.BaseStatement) -> None:
    """Raises NotPatched where nothing can be added after a line, as it goes on to call or return the pipeline."""
    if not isinstance(statement, cst.SimpleStatementLine) or len(statement.body) == 1:
        return
    leaves = any(isinstance(one, cst.Return | cst.Raise | cst.Break | cst.Continue) for one in statement.body)
    if leaves or used(script, homes, statement):
        what = "the pipeline is prepared on one line with what comes after that"
        raise script.refuse(statement, what, "put each statement on a line of its own")


def _check_cast(script: Script, call: cst.Call) -> None:
    """Raises NotPatched where a pipeline is cast in a statement that does more with it than to return it."""
    returned = isinstance(script.parent(call), cst.Return)
    if not returned or not isinstance(script.statement(call), cst.SimpleStatementLine):
        what = f"{script.text(call)} casts the pipeline where it is used already"
        raise script.refuse(call, what, OWN_LINE)


def _check_given(script: Script, homes: Homes, found: Calls, rest: Sequence[cst.BaseStatement]) -> None:
    """Raises NotPatched where a statement prepares the pipeline and gives it away: the plan comes in between."""
    for call in found.preparing:
        for top in rest:
            if top in script.ancestors(call) and gives(script, homes, top):
                what = f"{method(call)}() prepares the pipeline in one branch, which gives it away there"
                raise script.refuse(call, what, "return the pipeline after that, at the end of the function")
