"""Bytes as people read them: GiB and MiB, always with their unit."""

from memplan.facts import GIB, MIB

UNITS = f"1 GiB = 1024 MiB = {GIB:,} bytes"


def gib(nbytes: float) -> str:
    """GiB to two places, without the unit."""
    return f"{nbytes / GIB:,.2f}"


def mib(nbytes: float) -> str:
    """Whole MiB, without the unit."""
    return f"{nbytes / MIB:,.0f}"


def amount(nbytes: float) -> str:
    """GiB from one GiB on, MiB below, with the unit."""
    return f"{gib(nbytes)} GiB" if abs(nbytes) >= GIB else f"{mib(nbytes)} MiB"


def moved(nbytes: float) -> str:
    """As `amount`, and "nothing" for none."""
    return amount(nbytes) if nbytes else "nothing"
