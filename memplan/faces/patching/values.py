"""What an expression of a script is worth, as far as it can be told without running it."""

import ast
from typing import Any

import libcst as cst

from memplan.faces.patching.reading import Script, argument, method

UNKNOWN: Any = object()
"""The worth of what only a run would tell."""
DTYPES = ("bfloat16", "float16", "float32", "half", "float", "double", "float64")
SHORT = {"half": "float16", "float": "float32", "double": "float64"}
"""The dtypes that have a second name."""
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
    if dtypes(script, node):
        return DTYPE
    if _is_text(script, node):
        return DEVICE
    if isinstance(node, cst.Call) and script.qualified(node.func) == "torch.device":
        return TORCH_DEVICE
    if isinstance(node, cst.IfExp) and depth:
        return kind(script, node.body, depth - 1) or kind(script, node.orelse, depth - 1)
    origins = _origins(script, node)
    kinds = {kind(script, origin, depth - 1) for origin in origins} if depth else set()
    return kinds.pop() if len(kinds) == 1 else _by_name(node)


def dtypes(script: Script, node: cst.BaseExpression | None, depth: int = DEPTH) -> tuple[str, ...]:
    """The dtypes of torch that `node` may be, as "bfloat16"; () where it is none, or one of them cannot be told."""
    if node is None or not depth:
        return ()
    name = script.qualified(node).removeprefix("torch.")
    if name in DTYPES and name != script.qualified(node):
        return (SHORT.get(name, name),)
    arms = (node.body, node.orelse) if isinstance(node, cst.IfExp) else _origins(script, node)
    found = [dtypes(script, arm, depth - 1) for arm in arms]
    return tuple(dict.fromkeys(one for arm in found for one in arm)) if all(found) else ()


def dtype(script: Script, node: cst.BaseExpression | None) -> str:
    """The dtype of torch that `node` is on a device; "" where it is none, or cannot be told.

    Of two, one is that of a computer without a device where it is float32.
    """
    found = dtypes(script, node)
    halves = [one for one in found if one != "float32"] if len(found) > 1 else list(found)
    return halves[0] if len(halves) == 1 else ""


def _is_text(script: Script, node: cst.BaseExpression) -> bool:
    """Whether an expression makes a string, as f"cuda:{rank}" does, or is a parameter that is said to be one."""
    if isinstance(node, cst.Name):
        place = _only(script, node)
        annotation = place.annotation if isinstance(place, cst.Param) else None
        return annotation is not None and script.text(annotation.annotation).strip("\"'") == "str"
    if isinstance(node, cst.BinaryOperation):
        return _is_text(script, node.left) or isinstance(value(script, node.left), str)
    if isinstance(node, cst.Call):
        called = node.func
        joins = isinstance(called, cst.Attribute) and method(node) in ("format", "join")
        return method(node) == "str" or (joins and isinstance(called, cst.Attribute) and _is_text(script, called.value))
    return isinstance(node, cst.FormattedString | cst.ConcatenatedString | cst.SimpleString)


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
