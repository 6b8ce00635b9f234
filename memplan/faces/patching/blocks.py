"""The lines that memplan has put into a script before, between two comments that say so."""

import re
from dataclasses import dataclass
from textwrap import wrap

PLACE = "memplan_place"
"""Stands where such lines were while the script is read anew."""
END = "end"
WIDTH = 104
"""Characters of a comment that has no long word, beside its indent."""
_BEGINS = re.compile(rb"^[ \t]*# memplan \((?P<home>[^\n]+?)(?:, on (?P<device>[^\n]+?))?\): (?P<plan>[^\r\n]*)\r?$")


@dataclass(frozen=True)
class Lifted:
    """A script without those lines, the devices that they were on by pipeline, and how many went where."""

    source: bytes
    devices: dict[str, str]
    shifts: tuple[tuple[int, int], ...]


def begin(home: str, device: str, plan: str) -> list[str]:
    """The comment before the lines; `device` is an expression of the script, or "" for one that is written out."""
    text = f"# memplan ({home}{f', on {device}' if device else ''}): {plan}"
    return wrap(text, WIDTH, subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False)


def end(home: str) -> str:
    """The comment after them."""
    return f"# memplan ({home}): {END}"


def lifted(source: bytes, homes: frozenset[str], others: tuple[range, ...] = ()) -> Lifted:
    """`source` with a place in place of each block for one of `homes`, but for those in the lines of `others`."""
    kept: list[bytes] = []
    devices: dict[str, str] = {}
    shifts: list[tuple[int, int]] = []
    inside, gone = "", 0
    for number, line in enumerate(source.splitlines(keepends=True), 1):
        found = _BEGINS.match(line.rstrip(b"\n"))
        home, plan = (found["home"].decode(), found["plan"].decode()) if found else ("", "")
        if inside:
            gone += 1
            if home == inside and plan == END:
                shifts.append((len(kept), gone))
                inside, gone = "", 0
        elif found and plan != END and home in homes and not any(number in lines for lines in others):
            inside = home
            devices[home] = (found["device"] or b"").decode()
            ends = line[len(line.rstrip(b"\r\n")) :]
            kept.append(line[: len(line) - len(line.lstrip())] + PLACE.encode() + ends)
        else:
            kept.append(line)
    if inside:
        return Lifted(source, {}, ())
    text = b"".join(kept)
    return Lifted(text if source[-1:] in b"\r\n" else text.rstrip(b"\r\n"), devices, tuple(shifts))
