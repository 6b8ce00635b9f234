"""What can go wrong, as a tree.

MemplanError
├── BadInput                 the caller's mistake: unknown model, wrong argument, missing file …  (exit code 2)
│   ├── NoGpu                there is no card to plan for
│   ├── NoDevice             there is no such device here to run on
│   └── Unsupported          understood, but not something memplan can do
├── NothingFits              no plan fits the machine; names the nearest one                       (exit code 3)
│   └── NoRoom               a plan does not fit when it is about to be used
├── LoadFailed               a pipeline could not be loaded; nothing of it is left
└── ApplyFailed              a plan could not be made real; what can be undone was undone
    └── InPart               a component was changed in part and cannot be put back
"""

from collections.abc import Iterable
from difflib import get_close_matches


class MemplanError(Exception):
    """Any error that memplan raises on purpose."""


class BadInput(MemplanError, ValueError):
    """The caller asked for something that does not exist or cannot be read."""


class NoGpu(BadInput):
    """There is no card to plan for: none is here, or none has the name that was given. `why` says so in a sentence.

    The text adds how to name one in Python; the command line adds its options instead, as to all that have a `why`.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        cure = 'target=memplan.Target(gpu="RTX 4070") names a card, target=memplan.Target(vram=12) any other by its GiB'
        super().__init__(f"{why} {cure}.")


class NoDevice(BadInput):
    """There is no such device here to run on; `why` says so in a sentence, to which the text adds what to do."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f'{why} Run it where there is one, or give device="cpu" and a target to rehearse it.')


class Unsupported(BadInput):
    """The request is understood, but memplan cannot do it; the text says what to do instead."""


class NothingFits(MemplanError):
    """No plan fits the machine."""


class NoRoom(NothingFits):
    """A plan does not fit when it is about to be used; `why` has the figures, to which the text adds what to do.

    A process that takes more host memory than there is gets no error: the system ends it.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        cure = (
            "Free memory, take a plan that needs less, as prefer='memory' does, or say force=True to do it all the same"
        )
        super().__init__(f"{why} {cure}.")


class LoadFailed(MemplanError):
    """A pipeline could not be loaded; nothing of it is left in memory."""


class ApplyFailed(MemplanError):
    """A plan could not be applied; what had been done was undone."""


class InPart(ApplyFailed):
    """It failed with a component changed in part; the text says how far, and what to do."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The question that follows a sentence about `word`; "" where nothing that is known is like it."""
    close = get_close_matches(word, [*known], n=1)
    return f" Did you mean {close[0]}?" if close else ""
