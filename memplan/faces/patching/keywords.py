"""What `**` hands to a call that loads, beside what is written out there."""

import libcst as cst

from memplan.faces.options import DTYPES, PLANNED
from memplan.faces.patching.reading import Script, method
from memplan.faces.patching.values import assigned, value

CHANGING = ("pop", "setdefault", "update")
"""Methods of a table that change which keys it has."""
DECIDED = (*DTYPES, *PLANNED)


def check_keywords(script: Script, call: cst.Call) -> None:
    """Raises NotPatched where `**` hands over what the plan decides, or what cannot be told."""
    for given in call.args:
        if given.star != "**":
            continue
        shown, names = script.text(given.value), keys(script, given.value)
        if names is None:
            cure = f"write those of {', '.join(DTYPES)}, device_map and quantization_config out that it has"
            raise script.refuse(given, f"what **{shown} holds cannot be told", cure)
        for name in sorted(names.intersection(DECIDED)):
            cure = f"write {name} out as an argument of the call"
            raise script.refuse(given, f"**{shown} has {name}, which the plan decides", cure)


def keys(script: Script, node: cst.BaseExpression) -> frozenset[str] | None:
    """The keys of a table that is written out; None where they cannot be told."""
    if isinstance(node, cst.Name):
        place = assigned(script, node)
        whole = place is not None and place.value is not None and not _changes(script, node)
        return keys(script, place.value) if whole and place is not None and place.value is not None else None
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value == "dict":
        named = [given.keyword.value for given in node.args if given.keyword is not None]
        return frozenset(named) if len(named) == len(node.args) else None
    if not isinstance(node, cst.Dict):
        return None
    found = [value(script, one.key) for one in node.elements if isinstance(one, cst.DictElement)]
    texts = frozenset(one for one in found if isinstance(one, str))
    return texts if len(found) == len(node.elements) and all(isinstance(one, str) for one in found) else None


def _changes(script: Script, name: cst.Name) -> bool:
    """Whether the keys of the table so called are changed after it was made."""
    for call in script.all(cst.Call):
        if method(call) in CHANGING and isinstance(call.func, cst.Attribute) and script.same(call.func.value, name):
            return True
    targets = (one.target for one in script.all(cst.AssignTarget))
    return any(isinstance(one, cst.Subscript) and script.same(one.value, name) for one in targets)
