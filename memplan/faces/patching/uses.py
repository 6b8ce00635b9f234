"""Where a script has its pipeline compute, and where it gives the pipeline away."""

import re
from collections.abc import Sequence

import libcst as cst

from memplan.faces.patching.decisions import Calls
from memplan.faces.patching.find import FROM_PIPE, unmoved
from memplan.faces.patching.homes import Homes
from memplan.faces.patching.reading import Script, method

STEPS = re.compile(r"_?(encode|decode)_\w+")
"""Methods of a pipeline that call a component."""
PARTS = re.compile(r"(unet|transformer|vae|text_encoder|image_encoder|controlnet|prior|decoder)(_\d)?")
"""Components by the names that pipelines have for them."""
OF_PARTS = ("decode", "encode", "forward", "generate")
"""Methods of a component that compute."""


def uses(script: Script, homes: Homes, found: Calls, statement: cst.BaseStatement) -> bool:
    """Whether a statement calls the pipeline or gives it away, when it is run itself and not only defined."""
    if isinstance(statement, cst.FunctionDef | cst.ClassDef):
        return False
    small = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
    if small and all(one in found.dropped for one in small):
        return False
    return used(script, homes, statement) or gives(script, homes, statement)


def used(script: Script, homes: Homes, within: cst.CSTNode) -> bool:
    """Whether the pipeline is called inside of a statement, or handed to another function."""
    calls = (call for call in script.all(cst.Call) if within in script.ancestors(call) and method(call) != FROM_PIPE)
    return any(_computes(homes, call) or any(homes.has(given.value) for given in call.args) for call in calls)


def gives(script: Script, homes: Homes, within: cst.CSTNode) -> bool:
    """Whether the pipeline is returned or yielded inside of a statement."""
    given = (node for kind in (cst.Attribute, cst.Name, cst.Subscript) for node in script.all(kind) if homes.has(node))
    around = (list(script.ancestors(node)) for node in given)
    return any(within in found and _leaves(found[: found.index(within)]) for found in around)


def _leaves(inside: Sequence[cst.CSTNode]) -> bool:
    return any(isinstance(node, cst.Return | cst.Yield) for node in inside)


def _computes(homes: Homes, call: cst.Call) -> bool:
    """Whether a call is one of the pipeline, of a part of its work, or of one of its components."""
    func = call.func
    if homes.has(unmoved(func)):
        return True
    if not isinstance(func, cst.Attribute):
        return False
    name = func.attr.value
    if homes.has(func.value):
        return bool(STEPS.fullmatch(name) or PARTS.fullmatch(name))
    part = homes.part(func.value)
    return bool(PARTS.fullmatch(part)) and name in OF_PARTS
