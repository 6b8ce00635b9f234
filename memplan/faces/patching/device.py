"""On which device a plan is applied, as the script says it."""

import libcst as cst

from memplan.faces.patching.chosen import Found
from memplan.faces.patching.decisions import Calls
from memplan.faces.patching.places import Place
from memplan.faces.patching.reading import Script
from memplan.faces.patching.values import TORCH_DEVICE, kind, value


def device(here: Found, where: Place, decided: Calls, usual: str) -> tuple[str | None, str]:
    """The device of the added lines, None for the `usual` one, and how the script writes it, "" for that."""
    if here.lifted.shifts:
        shown = here.lifted.devices.get(here.home, "")
        written = cst.parse_expression(shown) if shown else None
        return (str(written.raw_value) if isinstance(written, cst.SimpleString) else None), shown
    moves = [given for call, given in (*decided.devices, *decided.parts) if call is where.move]
    if not moves:
        there = elsewhere(here.script, decided)
        return (None, "") if there in ("", usual) else (there, f'"{there}"')
    (given,) = moves
    text = _literal(here.script, given)
    if text is not None or given is None:
        return (None, "") if text in (None, usual) else (text, f'"{text}"')
    shown = " ".join(here.script.text(given).split())
    return None, f"str({shown})" if kind(here.script, given) == TORCH_DEVICE else shown


def elsewhere(script: Script, decided: Calls) -> str:
    """The device that the script moves the pipeline to, where that can be told without its names; "" for none."""
    found = ["cuda" if given is None else value(script, given) for _, given in decided.devices]
    texts = {f"cuda:{one}" if isinstance(one, int) else one for one in found if isinstance(one, int | str)}
    known = len(texts) == 1 and all(isinstance(one, int | str) for one in found)
    return texts.pop() if known else ""


def _literal(script: Script, node: cst.BaseExpression | None) -> str | None:
    """A device that is written out, as "cuda:1" or 1; None for an expression."""
    if node is None:
        return "cuda"
    found = value(script, node)
    if isinstance(node, cst.Integer):
        return f"cuda:{found}"
    return found if isinstance(node, cst.SimpleString) else None
