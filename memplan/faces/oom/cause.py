"""Whether an error says that memory ran out. It is asked of every error, so that nothing heavy is loaded for it."""

from traceback import walk_tb

from memplan.oom import POSSIBLY, Allocation, read


def out_of_memory(error: BaseException) -> tuple[BaseException, Allocation] | None:
    """The failed allocation that `error` is, was raised from, or has in its group; None for every other error."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop(0)
        if not isinstance(cause, Exception) or id(cause) in seen:
            continue
        seen.add(id(cause))
        found = read([kind.__name__ for kind in type(cause).__mro__], _text(cause)) or _swallowed(cause)
        if found is not None:
            return cause, found
        waiting += [*(cause.exceptions if isinstance(cause, ExceptionGroup) else ()), cause.__cause__]
    return None


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # the class is its author's, and is asked on the way of every error
        return ""


def _swallowed(error: Exception) -> Allocation | None:
    """A lack of memory that diffusers made a warning of: it trips over the picture that is missing then.

    The pipelines of Sana catch OutOfMemoryError around their decode (pipelines/sana/pipeline_sana.py), and go on to use
    what it would have made.
    """
    if not isinstance(error, UnboundLocalError):
        return None
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    if not frames:
        return None
    frame = frames[-1]
    ours = str(frame.f_globals.get("__name__", "")).startswith("diffusers.")
    return Allocation(certainty=POSSIBLY) if ours and "OutOfMemoryError" in frame.f_code.co_names else None
