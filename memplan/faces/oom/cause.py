"""Whether an error says that memory ran out. It is asked of every error, so that nothing heavy is loaded for it."""

from memplan.oom import Allocation, read


def out_of_memory(error: BaseException) -> tuple[BaseException, Allocation] | None:
    """The failed allocation that `error` is, or that it was raised from; None for every other error."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while isinstance(cause, Exception) and id(cause) not in seen:
        seen.add(id(cause))
        found = read([kind.__name__ for kind in type(cause).__mro__], str(cause))
        if found is not None:
            return cause, found
        cause = cause.__cause__
    return None
