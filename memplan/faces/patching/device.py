"""On which device a plan is applied, as the script says it."""

import libcst as cst

from memplan.faces.patching.calls import Calls, literal
from memplan.faces.patching.chosen import Found
from memplan.faces.patching.places import Place
from memplan.faces.patching.values import TORCH_DEVICE, kind


def device(here: Found, where: Place, decided: Calls, usual: str) -> tuple[str | None, str]:
    """The device of the added lines, None for the `usual` one, and how the script writes it, "" for that."""
    if here.lifted.shifts:
        shown = here.lifted.devices.get(here.home, "")
        written = cst.parse_expression(shown) if shown else None
        return (str(written.raw_value) if isinstance(written, cst.SimpleString) else None), shown
    if where.move is None:
        return None, ""
    given = next(given for call, given in decided.devices if call is where.move)
    text = literal(here.script, given)
    if text is not None or given is None:
        return (None, "") if text in (None, usual) else (text, f'"{text}"')
    shown = " ".join(here.script.text(given).split())
    return None, f"str({shown})" if kind(here.script, given) == TORCH_DEVICE else shown
