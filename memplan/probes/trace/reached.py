"""Notices which components run, by their doors or by other ways."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook


@contextmanager
def running(components: Mapping[str, nn.Module], inside: Callable[[], bool]) -> Generator[set[str]]:
    """The names of components of which a module runs while no door is open, as of this moment.

    `get_text_features()` of an encoder is such a way. A weight that is read without calling a module goes unnoticed.
    """
    owners = {id(module): name for name, part in components.items() for module in part.modules()}
    found: set[str] = set()

    def enter(module: nn.Module, args: Any) -> None:
        if not inside() and id(module) in owners:
            found.add(owners[id(module)])

    handle = register_module_forward_pre_hook(enter)
    try:
        yield found
    finally:
        handle.remove()
