"""Bytes and seconds as people read them: GiB and MiB, always with their unit."""

GIB = 1024**3
MIB = 1024**2
UNITS = f"1 GiB = 1024 MiB = {GIB:,} bytes"

TERA = 10**12
MINUTE = 60
"""Seconds of a minute, and minutes of an hour."""
TENTHS = 10
"""Seconds from which tenths are enough."""


def gib(nbytes: float) -> str:
    """GiB to two places, without the unit."""
    return f"{nbytes / GIB:,.2f}"


def mib(nbytes: float) -> str:
    """Whole MiB, without the unit."""
    return f"{nbytes / MIB:,.0f}"


def amount(nbytes: float) -> str:
    """GiB from one GiB on, MiB below, with the unit."""
    return f"{gib(nbytes)} GiB" if abs(nbytes) >= GIB else f"{mib(nbytes)} MiB"


def duration(seconds: float) -> str:
    """Seconds as people read them: "0.42 s", "12.3 s", "4 min 10 s", "2 h 05 min"."""
    if seconds < MINUTE:
        return f"{seconds:.2f} s" if seconds < TENTHS else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), MINUTE)
    hours, left = divmod(minutes, MINUTE)
    return f"{hours} h {left:02} min" if hours else f"{minutes} min {rest:02} s"


def operations(flops: float) -> str:
    """Floating-point operations in units of 10^12 from that on, else of 10^9."""
    return f"{flops / TERA:,.1f} TFLOP" if flops >= TERA else f"{1000 * flops / TERA:,.1f} GFLOP"


def moved(nbytes: float) -> str:
    """As `amount`, and "nothing" for none."""
    return amount(nbytes) if nbytes else "nothing"
