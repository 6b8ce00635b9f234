"""The help of strategies, from their docstrings and settings."""

from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from inspect import cleandoc
from typing import Any, get_type_hints

from memplan.faces.report.layout import columns, paragraph
from memplan.strategy import Strategy

READ = ("component", "components")
"""Settings without a default that nobody needs to give."""


def listing(strategies: Iterable[type[Strategy]]) -> str:
    """Every strategy with the first line of its docstring."""
    rows = [(cls.name, cleandoc(cls.__doc__ or "").partition("\n")[0]) for cls in strategies]
    return "\n".join(["Strategies", *columns("ll", rows), "", "memplan explain STRATEGY says more of one."])


def page(cls: type[Strategy]) -> str:
    """One strategy: its docstring, its settings, how to type it, and whether it can be undone."""
    rows = settings(cls)
    parts = [
        [cls.name],
        *(paragraph(" ".join(text.split())) for text in cleandoc(cls.__doc__ or "").split("\n\n")),
        ["Settings", *columns("lll", rows)] if rows else [],
        paragraph(f"As typed: --with {typed(cls)}"),
        paragraph(f"Needs {cls.needed()}.") if cls.needed() else [],
        paragraph(f"Can't be undone: {cls.irreversible}." if cls.irreversible else "It can be undone."),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def settings(cls: type[Strategy]) -> list[tuple[str, str, str]]:
    """Name, type and default of each setting."""
    hints = get_type_hints(cls)
    return [(field.name, _kind(hints[field.name]), _default(field)) for field in _fields(cls)]


def typed(cls: type[Strategy]) -> str:
    """How it is typed with every setting."""
    names = [field.name for field in _fields(cls)]
    given = ",".join(f"{name}=…" for name in names if name not in ("component", "components"))
    given = ",".join(filter(None, ("component" if "component" in names else "", given)))
    return f"{cls.name}:{given}" if given else cls.name


def _fields(cls: type[Strategy]) -> list[Field[Any]]:
    return list(fields(cls))  # type: ignore[arg-type]


def _kind(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not getattr(hint, "__args__", ()) else str(hint)


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return f"default {field.default!r}"
    return "read from the pipeline when left out" if field.name in READ else "must be given"
