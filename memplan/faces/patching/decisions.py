"""What is to be changed of a script, and how one of its statements goes."""

from dataclasses import dataclass, field

import libcst as cst

from memplan.faces.patching.aliases import check_left
from memplan.faces.patching.find import unmoved
from memplan.faces.patching.reading import Script

OWN_LINE = "put it on a line of its own, by itself"


@dataclass(eq=False)
class Calls:
    """What is to be changed of a script, by node.

    `moves` are calls of .to() and .cuda() with the arguments they keep; `dropped` are small statements that go.
    `anchors` are what the plan is applied after, and `preparing` those of them that stay. `devices` is what the script
    itself places the pipeline on, each with the call, None for the usual one; `parts` the same of single components.
    """

    moves: dict[cst.Call, tuple[cst.Arg, ...]] = field(default_factory=dict)
    dropped: dict[cst.CSTNode, str] = field(default_factory=dict)
    anchors: list[cst.CSTNode] = field(default_factory=list)
    preparing: list[cst.Call] = field(default_factory=list)
    devices: list[tuple[cst.Call, cst.BaseExpression | None]] = field(default_factory=list)
    parts: list[tuple[cst.Call, cst.BaseExpression | None]] = field(default_factory=list)
    dtypes: list[cst.BaseExpression] = field(default_factory=list)

    def drop(self, script: Script, call: cst.Call, what: str) -> None:
        """The small statement of a call is to go. Raises NotPatched where its value is used."""
        small = script.small(call)
        line = script.parent(small) if small is not None else None
        alone = isinstance(small, cst.Expr) and unmoved(small.value) in (call, unmoved(call))
        assigned = isinstance(small, cst.Assign) and unmoved(small.value) in (call, unmoved(call))
        if small is None or not (alone or assigned) or not isinstance(line, cst.SimpleStatementLine):
            raise script.refuse(call, f"{script.text(call)} is part of another statement", OWN_LINE)
        if isinstance(small, cst.Assign):
            check_left(script, small, call)
        self.dropped[small] = what
