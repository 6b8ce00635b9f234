"""Which parameters of a slow test every run takes, and which only a run of the wide tests."""

from collections.abc import Iterable
from typing import Any

import pytest


def some(every: Iterable[str], *always: str) -> list[Any]:
    """All of `every` as parameters of a test; those that are not `always` run with -m wide."""
    return [pytest.param(name, marks=() if name in always else pytest.mark.wide) for name in every]
