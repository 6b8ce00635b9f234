"""What a script is refused for: the line, what stands there, and what to do."""

from memplan.errors import Unsupported


class NotPatched(Unsupported):
    """A script, or a part of it, that is not understood; nothing has been written."""


def refused(name: str, line: int, what: str, cure: str) -> NotPatched:
    """The error for `line` of the script `name`; `what` and `cure` are sentences without a full stop."""
    return NotPatched(f"{name}, line {line}: {what}. {cure[:1].upper()}{cure[1:]}.")
