"""Limits as people type them: "vram=10GiB, ram=24GiB, seconds=30, loss=near-lossless"."""

import math
from typing import Any

from memplan.errors import BadInput
from memplan.facts import GIB, LOSSES, MIB, Limits

EXAMPLE = "vram=10GiB, ram=24GiB, seconds=30, loss=near-lossless"
SIZES = {"": GIB, "gib": GIB, "mib": MIB, "gb": 10**9, "mb": 10**6}
TIMES = {"": 1, "s": 1, "min": 60}


def read_limits(text: str) -> Limits:
    """The limits that `text` names: device and host memory, seconds of a call, and the word of the greatest loss.

    Sizes without a unit are GiB. Raises BadInput for what is none of these.
    """
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or name not in READERS:
            raise BadInput(f'the limit {part!r} is none of {", ".join(READERS)}: write "{EXAMPLE}", or some of it')
        if name in found:
            raise BadInput(f"the limit of {name} is given twice: keep one")
        found[name] = READERS[name](name, value)
    return Limits(**found)


def _size(name: str, text: str) -> int:
    return int(_number(name, text, SIZES, "10GiB or 800MiB"))


def _seconds(name: str, text: str) -> float:
    return _number(name, text, TIMES, "30 or 2min")


def _number(name: str, text: str, units: dict[str, int], example: str) -> float:
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text[len(digits) :].strip().lower()
    try:
        number = float(digits) * units[unit]
    except (ValueError, KeyError):
        raise BadInput(f"the limit {name}={text} is no number with a unit: write {name}={example}") from None
    if not (math.isfinite(number) and number > 0):
        raise BadInput(f"the limit {name}={text} leaves nothing: give more than 0, as {name}={example}")
    return number


def _loss(name: str, text: str) -> str:
    if text not in LOSSES:
        raise BadInput(f"the limit {name}={text} is no word for a loss: use one of {', '.join(LOSSES)}")
    return text


READERS = {"vram": _size, "ram": _size, "seconds": _seconds, "loss": _loss}
