"""Settings of a module, changed for a while."""

from collections.abc import Callable, Mapping
from typing import Any

from memplan.strategy import Undo

from .way_back import switched


def changed(part: Any, settings: Callable[[], Mapping[str, Any]]) -> Undo:
    """Gives `part` the attributes that `settings` returns, which may change others itself; the value undoes both.

    Where it fails, that is done at once.
    """

    def change() -> None:
        for name, value in settings().items():
            setattr(part, name, value)

    return switched([part], change)
