"""Finds the card that a person, a driver or a shop means by a name, and which others have the same."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from memplan.catalogue.gpus import Card, cards
from memplan.errors import BadInput, NoGpu
from memplan.facts import GIB

_SAYS_NOTHING = re.compile(
    r"\((?:r|tm|c)\)|nvidia|geforce|amd|radeon|instinct|intel|arc|apple|tesla|rtx|gtx|rx|gpu|graphics|generation|edition"
    r"|blackwell|hbm\w*"
)
_WORD = re.compile(
    r"(laptop|mobile|super|server|workstation|titan|ultra|maxq|sxm|pcie|nvl|pro|ada|max|xtx|gre|xt|ti|(?<=\d)d\b)\d?"
)
_MEMORY = re.compile(r"(?<![a-z0-9])(\d+)\s*g(?:i?b)?\b")
_FORMS = {"sxm", "pcie", "nvl", "workstation", "server", "maxq"}
_FEW = 5


def find_card(name: str, vram: float | None = None, ram: float | None = None) -> Card:
    """The card called `name`: "RTX 4070", "rtx4070ti", "4070 laptop", "NVIDIA H100 80GB HBM3".

    Where the name fits several memory sizes, `vram` (GiB; for unified memory also `ram`) decides, then the one that
    is the common one. Raises NoGpu with the nearest names, and BadInput with the choices where none is.
    """
    found = _meant(name, vram, ram)
    common = [c for c in found if c.default] or found
    if len(common) > 1:
        raise BadInput(f'"{name}" can be any of {len(found)} cards. Name the one you mean: {_listed(found)}.')
    return common[0]


def namesakes(name: str, vram: float | None = None, ram: float | None = None) -> tuple[str, ...]:
    """The names of the cards that `name` could mean beside the one that `find_card` takes. Raises what that does."""
    card = find_card(name, vram, ram)
    return tuple(c.name for c in _meant(name, vram, ram) if c is not card)


def resembling(name: str, total: int) -> Card | None:
    """The card that a driver calls `name` and gives `total` bytes of memory, or None where the catalogue lacks it."""
    return min(_called(name), key=lambda c: (abs(c.total - total), not c.default), default=None)


def _meant(name: str, vram: float | None, ram: float | None) -> list[Card]:
    """The cards called `name`, of the memory that is given where any has it. Raises NoGpu where there is none."""
    found = _called(name)
    if not found:
        raise NoGpu(_unknown(name))
    return [c for c in found if c.memory in _bytes(vram, ram if c.unified else None)] or found


def _called(name: str) -> list[Card]:
    """The cards whose name says all that `name` says, and no more than their memory or form beyond it."""
    wanted = _tokens(name)
    return [c for c in cards() if _essence(c) <= wanted <= _tokens(c.name) | {_size(c)}]


def _essence(card: Card) -> frozenset[str]:
    return _tokens(card.name) - _FORMS - {_size(card)}


def _size(card: Card) -> str:
    return f"{card.memory // GIB}gb"


def _tokens(name: str) -> frozenset[str]:
    return frozenset(_plain(name).split())


def _plain(name: str) -> str:
    """`name` in lower case without the words that tell no card from another, its suffixes apart: "4070 ti"."""
    text = re.sub(r"max[- ]?q\b", "maxq", name.lower())
    text = _SAYS_NOTHING.sub(" ", text)
    text = _MEMORY.sub(r" \1gb ", text)
    text = _WORD.sub(r" \1 ", text).replace("mobile", "laptop")
    return " ".join(re.findall(r"[a-z0-9]+", text))


def _bytes(*sizes: float | None) -> list[float]:
    return [size * GIB for size in sizes if size is not None]


def _listed(found: Iterable[Card]) -> str:
    return ", ".join(f'"{c.name}"' for c in found)


def _unknown(name: str) -> str:
    near = _near(name)
    meant = f" Do you mean {_listed(near)}?" if near else ""
    return f'No card of the catalogue is called "{name}".{meant}'


def _near(name: str) -> list[Card]:
    """A few cards: those whose name adds words to `name`, or else those spelled much like it, beginning alike.

    A number begins with that of the generation: a 1080 is nothing like a 5080.
    """
    wanted, plain = _tokens(name), _plain(name)
    longer = [c for c in cards() if wanted and wanted < _tokens(c.name)]
    spelled = {text: c for c in cards() if (text := _plain(c.name))[:2] == plain[:2]}
    return longer[:_FEW] or [spelled[key] for key in get_close_matches(plain, spelled, n=_FEW, cutoff=0.6)]
