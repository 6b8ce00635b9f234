"""What can go wrong, as a tree.

MemplanError
├── BadInput                 the caller's mistake: unknown model, wrong argument, missing file …  (exit code 2)
│   └── Unsupported          understood, but not something memplan can do
├── NothingFits              no plan fits the machine; names the nearest one                       (exit code 3)
└── ApplyFailed              a plan could not be made real; what can be undone was undone
"""


class MemplanError(Exception):
    """Any error that memplan raises on purpose."""


class BadInput(MemplanError, ValueError):
    """The caller asked for something that does not exist or cannot be read."""


class Unsupported(BadInput):
    """The request is understood, but memplan cannot do it; the text says what to do instead."""


class NothingFits(MemplanError):
    """No plan fits the machine."""


class ApplyFailed(MemplanError):
    """A plan could not be applied; what had been done was undone."""
