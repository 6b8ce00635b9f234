"""Calls of .to() and .cuda(): on which device a script places its pipeline, or a component of it."""

import libcst as cst

from memplan.faces.patching.blocks import PLACE
from memplan.faces.patching.decisions import Calls
from memplan.faces.patching.find import MOVES, Pipeline, unmoved
from memplan.faces.patching.homes import Homes
from memplan.faces.patching.reading import Script, method
from memplan.faces.patching.values import DTYPE, kind, value

HOST = "cpu"


def move(script: Script, pipeline: Pipeline, homes: Homes, call: cst.Call, found: Calls) -> None:
    """A call of .to() or .cuda(), where it is one on the pipeline, or on a component of it."""
    assert isinstance(call.func, cst.Attribute)
    of = unmoved(call.func.value)
    whole = homes.has(of) or _is_load(of, pipeline)
    if not (whole or homes.part(of)):
        return
    to, kept, dtypes = _arguments(script, call)
    found.dtypes += dtypes if whole else []
    if to is None and method(call) == "to":
        found.anchors.append(call)
        return
    if whole and value(script, to) == HOST:
        _check_back(script, homes, call)
        return
    _check_plain(script, call)
    found.anchors.append(call)
    if whole or value(script, to) != HOST:
        (found.devices if whole else found.parts).append((call, to))
    if not kept and call.func.value is of and _does_nothing_else(script, script.parent(call), of):
        found.drop(script, call, "")
    else:
        found.moves[call] = kept


def _check_plain(script: Script, call: cst.Call) -> None:
    """Raises NotPatched for a move in one arm of `a if b else c`, which a plan cannot be applied in."""
    if isinstance(script.parent(call), cst.IfExp):
        what = f"{script.text(call)} is one of two values"
        raise script.refuse(call, what, "move the pipeline under an if, on a line of its own")


def _is_load(node: cst.CSTNode, pipeline: Pipeline) -> bool:
    return node is pipeline.load


def _arguments(
    script: Script, call: cst.Call
) -> tuple[cst.BaseExpression | None, tuple[cst.Arg, ...], list[cst.BaseExpression]]:
    """The device that a move names, the arguments that are none, and those of them that are dtypes."""
    to, kept, dtypes = None, list[cst.Arg](), list[cst.BaseExpression]()
    for given in call.args:
        name = given.keyword.value if given.keyword else ""
        what = name if name in ("device", "dtype") else "" if name else kind(script, given.value)
        if what == DTYPE:
            dtypes.append(given.value)
            kept.append(given)
        elif what or method(call) == "cuda":
            to = given.value
        elif name in ("memory_format", "silence_dtype_warnings", "non_blocking"):
            kept += [given] if name == "memory_format" else []
        else:
            shown = script.text(given.value)
            cure = f'write device={shown} or dtype={shown}, or the device itself, as in .to("cuda")'
            raise script.refuse(call, f"whether {shown} is a device or a dtype cannot be told", cure)
    return to, tuple(kept), dtypes


def _check_back(script: Script, homes: Homes, call: cst.Call) -> None:
    """Raises NotPatched for a pipeline that goes back to the CPU, unless another branch moves it to the device."""
    others: list[cst.CSTNode] = [one for one in script.all(cst.Call) if one is not call and _moves(homes, one)]
    others += placed_before(script)
    for branch in script.ancestors(call):
        if isinstance(branch, cst.If) and any(branch in script.ancestors(one) for one in others):
            return
    what = f"{script.text(call)} takes the pipeline off the device, which a plan does by itself"
    raise script.refuse(call, what, "leave that line out, then patch again")


def _moves(homes: Homes, call: cst.Call) -> bool:
    return isinstance(call.func, cst.Attribute) and method(call) in MOVES and homes.has(unmoved(call.func.value))


def placed_before(script: Script) -> list[cst.SimpleStatementLine]:
    """The places that stand for lines which were there before, in order."""
    lines = script.all(cst.SimpleStatementLine)
    return [line for line in lines if [script.text(small) for small in line.body] == [PLACE]]


def _does_nothing_else(script: Script, statement: cst.CSTNode, of: cst.BaseExpression) -> bool:
    """Whether a statement only moves: `pipe.to(...)`, or `pipe = pipe.to(...)`."""
    if isinstance(statement, cst.Expr):
        return not isinstance(of, cst.Call)
    one = isinstance(statement, cst.Assign) and len(statement.targets) == 1
    return one and isinstance(statement, cst.Assign) and script.text(statement.targets[0].target) == script.text(of)
