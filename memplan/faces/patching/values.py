"""What an expression of a script is worth, as far as it can be told without running it."""

import ast
from typing import Any

import libcst as cst

from memplan.faces.patching.reading import Script, argument, method

UNKNOWN: Any = object()
"""The worth of what only a run would tell."""
DTYPES = ("bfloat16", "float16", "float32", "half", "float", "double", "float64")
DEVICE, TORCH_DEVICE, DTYPE = "device", "torch.device", "dtype"
"""What an argument of .to() is."""
DEPTH = 8
"""Names that are followed, one to the next."""


def value(script: Script, node: cst.BaseExpression | None, depth: int = DEPTH) -> Any:
    """The constant that `node` is worth: a literal, a name assigned once, a default of argparse or of os.environ.

    UNKNOWN for anything else.
    """
    if node is None or not depth:
        return UNKNOWN
    try:
        return ast.literal_eval(script.text(node))
    except (ValueError, SyntaxError):
        pass
    origin = _origin(script, node)
    if origin is not None:
        return value(script, origin, depth - 1)
    return _default(script, node, depth)


def kind(script: Script, node: cst.BaseExpression, depth: int = DEPTH) -> str:
    """DEVICE, TORCH_DEVICE or DTYPE for an argument of .to(); "" where it cannot be told."""
    found = value(script, node)
    if isinstance(found, str) or (isinstance(found, int) and not isinstance(found, bool)):
        return DEVICE
    if dtype(script, node):
        return DTYPE
    if isinstance(node, cst.Call) and script.qualified(node.func) == "torch.device":
        return TORCH_DEVICE
    if isinstance(node, cst.IfExp) and depth:
        return kind(script, node.body, depth - 1) or kind(script, node.orelse, depth - 1)
    origins = _origins(script, node)
    kinds = {kind(script, origin, depth - 1) for origin in origins} if depth else set()
    return kinds.pop() if len(kinds) == 1 else _by_name(node)


def dtype(script: Script, node: cst.BaseExpression | None) -> str:
    """The dtype of torch that `node` is, as "bfloat16"; "" where it is none or cannot be told."""
    for _ in range(DEPTH):
        if node is None:
            break
        name = script.qualified(node)
        if name.startswith("torch.") and name.removeprefix("torch.") in DTYPES:
            return {"half": "float16", "float": "float32"}.get(name[6:], name[6:])
        node = _origin(script, node)
    return ""


def _by_name(node: cst.BaseExpression) -> str:
    """What people call it: `device`, `args.device`, `self.torch_dtype`."""
    name = method(node).lower()
    if "device" in name or "cuda" in name:
        return TORCH_DEVICE
    return DTYPE if "dtype" in name else ""


def _origin(script: Script, node: cst.BaseExpression) -> cst.BaseExpression | None:
    """The expression that a name is assigned, where it is assigned once; the default of a parameter."""
    if not isinstance(node, cst.Name):
        return None
    place = _only(script, node)
    if isinstance(place, cst.Param):
        return place.default
    found = assigned(script, node)
    return found.value if found is not None else None


def _origins(script: Script, node: cst.BaseExpression) -> list[cst.BaseExpression]:
    """Every expression that a name is assigned; none where one of them cannot be seen."""
    if not isinstance(node, cst.Name):
        return []
    found = []
    for place in (one.node for one in script.assignments(node, node.value) if hasattr(one, "node")):
        parent = script.parent(place)
        parent = script.parent(parent) if isinstance(parent, cst.AssignTarget) else parent
        origin = place.default if isinstance(place, cst.Param) else getattr(parent, "value", None)
        if not isinstance(origin, cst.BaseExpression):
            return []
        found.append(origin)
    return found


def assigned(script: Script, node: cst.Name) -> cst.Assign | cst.AnnAssign | None:
    """The one assignment that gives a name its value; None where it has several, or none of its own."""
    place = _only(script, node)
    parent = script.parent(place) if place is not None else None
    if isinstance(parent, cst.AssignTarget):
        parent = script.parent(parent)
    if isinstance(parent, cst.Assign) and len(parent.targets) == 1:
        return parent
    return parent if isinstance(parent, cst.AnnAssign) and parent.target is place else None


def _only(script: Script, node: cst.Name) -> cst.CSTNode | None:
    """What gives a name its value, where one thing does."""
    places = [one.node for one in script.assignments(node, node.value) if hasattr(one, "node")]
    return places[0] if len(places) == 1 else None


def _default(script: Script, node: cst.BaseExpression, depth: int) -> Any:
    """What os.environ.get("NAME", default) and argparse's args.name are worth where nobody says otherwise."""
    if isinstance(node, cst.Call) and script.qualified(node.func) in ("os.environ.get", "os.getenv"):
        return value(script, argument(node, "default", 1), depth - 1)
    if not isinstance(node, cst.Attribute) or not isinstance(node.value, cst.Name):
        return UNKNOWN
    origin = _origin(script, node.value)
    if not (isinstance(origin, cst.Call) and method(origin) in ("parse_args", "parse_known_args")):
        return UNKNOWN
    for call in script.all(cst.Call):
        if method(call) == "add_argument" and node.attr.value in _options(script, call):
            return value(script, argument(call, "default"), depth - 1)
    return UNKNOWN


def _options(script: Script, call: cst.Call) -> list[str]:
    """The names by which argparse hands over an option."""
    given = [value(script, one.value) for one in call.args if one.keyword is None]
    named = value(script, argument(call, "dest"))
    words = [named] if isinstance(named, str) else given
    return [word.lstrip("-").replace("-", "_") for word in words if isinstance(word, str)]
