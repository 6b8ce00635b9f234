"""What an error says of memory, from its class and its text."""

from collections.abc import Sequence
from dataclasses import replace

from memplan.oom import bare, devices, host
from memplan.oom.allocation import MEMORY, Allocation

OUT_OF_MEMORY = "OutOfMemoryError"
"""The name of the class that PyTorch, cupy and others raise."""
OF_MEMORY = "MemoryError"
OF_PROGRAMS = frozenset((
    "ArithmeticError", "AssertionError", "AttributeError", "ImportError", "LookupError", "NameError",
    "NotImplementedError", "RecursionError", "StopIteration", "SyntaxError", "TypeError", "ValueError", "Warning",
    "KeyboardInterrupt", "SystemExit", "GeneratorExit",
))  # fmt: skip
"""Classes that tell of something else, whatever their text quotes."""


def read(classes: Sequence[str], text: str) -> Allocation | None:
    """The allocation that failed; None for an error that is no lack of memory.

    `classes` are the names of the error's class and of its bases, nearest first, without their modules.
    """
    if not OF_PROGRAMS.isdisjoint(classes):
        return None
    sure = (devices.caching, devices.asynchronous, host.pinned, devices.others, bare.driver)
    exact = next((found for wording in sure if (found := wording(text))), None)
    if exact is not None:
        return exact
    of_memory, out = OF_MEMORY in classes, OUT_OF_MEMORY in classes
    if bare.none(text, of_memory=of_memory or out):
        return None
    found = host.host(text, of_memory=of_memory and not out) or bare.hidden(text) or bare.said(text)
    if out:
        return replace(found or Allocation(), certainty=MEMORY)
    return found
