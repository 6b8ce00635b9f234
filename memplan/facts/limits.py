"""What the user allows a plan, beside what the machine has."""

from dataclasses import dataclass

EXACT, NEAR_LOSSLESS, SLIGHT, VISIBLE = "exact", "near-lossless", "slight", "visible"
UNPREDICTED = "not predicted"
"""The word for a picture that is another one, by how much nobody can tell beforehand: that of a step cache."""
LOSSES = (EXACT, NEAR_LOSSLESS, SLIGHT, VISIBLE, UNPREDICTED)
"""Words for a loss of precision, the least first."""


@dataclass(frozen=True)
class Limits:
    """The most of each that a plan may have: bytes of device and host memory, seconds of one call, a word of LOSSES.

    None is no limit.
    """

    vram: int | None = None
    ram: int | None = None
    seconds: float | None = None
    loss: str | None = None


NO_LIMITS = Limits()
