"""Colours that mean something are told apart by people of any colour vision, on light ground and on dark."""

import re
from importlib.resources import files
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest

VISIONS = {
    "usual": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ]),
    "tritanopia": np.array([
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900],
    ]),
}  # fmt: skip
"""How linear sRGB is seen: G. Machado, M. Oliveira and L. Fernandes, 2009, at severity 1."""
TO_CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
TO_LAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip
"""OKLab: B. Ottosson, 2020."""
STACK = ("context", "w0", "w1", "w2", "w3", "w4", "w5", "workspace", "unused", "copies", "activations")
LOSSES = ("exact", "near-lossless", "slight", "visible", "not-predicted")
LEAST = 9
"""Hundredths of OKLab's unit by which two colours differ at least; a difference of 2 can just be seen side by side."""


def colours(number: int) -> dict[str, str]:
    """Those of the first or the second block of the sheet."""
    sheet = files("memplan.faces.report.html").joinpath("page.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", sheet.split("}")[number]))


def seen(colour: str, vision: str) -> Any:
    """Its place in OKLab."""
    values = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return TO_LAB @ np.cbrt(TO_CONES @ np.clip(VISIONS[vision] @ linear, 0, 1))


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("ground", [0, 1], ids=["light", "dark"])
def test_colours_are_told_apart(ground: int, vision: str) -> None:
    every = colours(ground)
    for one, other in [*pairwise(STACK), *combinations(LOSSES, 2)]:
        apart = 100 * float(np.linalg.norm(seen(every[one], vision) - seen(every[other], vision)))
        assert apart > LEAST, (one, other)
