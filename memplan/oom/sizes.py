"""Sizes as errors write them."""

import re

SIZE = r"(\d[\d,]*\.?\d*)\s*([kKMGTPE]i?B|[bB]ytes?|B)\b"
"""The pattern of one size: its number and its unit."""
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
_LARGEST = 1 << 60
"""What is more is a number that wrapped around, as allocators print "no limit" or a process that cannot be asked."""


def size(number: str, unit: str) -> int | None:
    """Bytes; None for what no memory can be.

    Every allocator counts in powers of two, whichever unit it writes: Metal's "18.13 GB" of older PyTorch is the
    "18.13 GiB" of newer (`format_size` of MPSAllocator.h divides by 1 << 30), and TH's "2GB" are 1 << 30 each.
    """
    prefix = unit[0].upper() if unit[0] in "kKMGTPE" and unit[1:] else ""
    nbytes = round(float(number.replace(",", "")) * (1 << _SHIFTS[prefix]))
    return nbytes if nbytes < _LARGEST else None


def find(pattern: str, text: str) -> int | None:
    """The size where `pattern` has SIZE, in place of "{}"; None where it is not, or is no size."""
    found = re.search(pattern.replace("{}", SIZE), text, re.IGNORECASE | re.DOTALL)
    return size(found[1], found[2]) if found else None
