"""How often torch's compiler compiles one piece of code, for other sizes and kinds, before it goes on uncompiled."""

from typing import Any

from memplan.strategy import Undo

LIMIT, FORMER_LIMIT = "recompile_limit", "cache_size_limit"
"""How often dynamo compiles one piece of code (torch/_dynamo/config.py), and what that was called before torch 2.6."""


def raised(config: Any, limit: int) -> Undo:
    """Lets dynamo compile a piece of code up to `limit` times; the value gives it its former limits.

    Older releases call the limit otherwise; all pieces together have one of their own.
    """
    name = LIMIT if hasattr(config, LIMIT) else FORMER_LIMIT
    before = {key: getattr(config, key) for key in (name, f"accumulated_{name}")}

    def restore() -> None:
        for key, value in before.items():
            setattr(config, key, value)

    for key, value in before.items():
        setattr(config, key, max(value, limit))
    return restore
