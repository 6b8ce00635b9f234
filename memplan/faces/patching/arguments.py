"""Arguments of a call, set and taken out in the style in which the call is written."""

from collections.abc import Collection
from textwrap import indent

import libcst as cst

TIGHT = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
"""The sign between the name of an argument and its value."""


def without(call: cst.Call, names: Collection[str]) -> cst.Call:
    """The call without the arguments of these names; what ended the last one ends the one that is last now."""
    kept = [given for given in call.args if not (given.keyword and given.keyword.value in names)]
    if len(kept) == len(call.args):
        return call
    if kept:
        last = call.args[-1]
        kept[-1] = kept[-1].with_changes(comma=last.comma, whitespace_after_arg=last.whitespace_after_arg)
    return call.with_changes(args=kept)


def with_argument(call: cst.Call, name: str, code: str, margin: str = "") -> cst.Call:
    """The call with `name` set to the value that `code` is, in the place of an earlier value or at the end.

    One on a single line has its arguments on a line each afterwards where the value takes several; `margin` is how much
    deeper than its statement it stands.
    """
    if "\n" in code and not _is_spread(call):
        call = _spread(call, margin)
    value = cst.parse_expression(_deeper(code, call) if _is_spread(call) else code)
    args = list(call.args)
    for at, given in enumerate(args):
        if given.keyword and given.keyword.value == name:
            args[at] = given.with_changes(value=value)
            return call.with_changes(args=args)
    before = cst.Comma(whitespace_after=call.whitespace_before_args if _is_spread(call) else cst.SimpleWhitespace(" "))
    added = cst.Arg(value, cst.Name(name), TIGHT)
    at = next((at for at, given in enumerate(args) if given.star == "**"), len(args))
    if at < len(args):
        return call.with_changes(args=[*args[:at], added.with_changes(comma=before), *args[at:]])
    if args:
        last = args[-1]
        added = added.with_changes(comma=last.comma, whitespace_after_arg=last.whitespace_after_arg)
        args[-1] = last.with_changes(comma=before, whitespace_after_arg=cst.SimpleWhitespace(""))
    return call.with_changes(args=[*args, added])


def _is_spread(call: cst.Call) -> bool:
    """Whether its first argument starts a line."""
    return isinstance(call.whitespace_before_args, cst.ParenthesizedWhitespace)


def _spread(call: cst.Call, margin: str) -> cst.Call:
    """The call with each argument on a line of its own."""
    inner = cst.ParenthesizedWhitespace(indent=True, last_line=cst.SimpleWhitespace(f"{margin}    "))
    outer = cst.ParenthesizedWhitespace(indent=True, last_line=cst.SimpleWhitespace(margin))
    none = cst.SimpleWhitespace("")
    args = [
        given.with_changes(comma=cst.Comma(whitespace_after=inner), whitespace_after_arg=none) for given in call.args
    ]
    args[-1:] = [given.with_changes(comma=cst.Comma(whitespace_after=outer)) for given in args[-1:]]
    return call.with_changes(whitespace_before_args=inner, args=args)


def has(call: cst.Call, *names: str) -> bool:
    """Whether one of these is given by name."""
    return any(given.keyword is not None and given.keyword.value in names for given in call.args)


def _deeper(code: str, call: cst.Call) -> str:
    """The code with the lines after its first one as deep as the arguments of a call that has them on lines."""
    before = call.whitespace_before_args
    depth = before.last_line.value if isinstance(before, cst.ParenthesizedWhitespace) else ""
    first, *rest = code.split("\n")
    return "\n".join([first, *(indent(line, depth) for line in rest)])
