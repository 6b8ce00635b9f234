"""Calls a component in other ways than the pipeline does, and leaves it as it was."""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

from torch.utils._python_dispatch import _disable_current_modes

from memplan import pieces
from memplan.facts import IN_SLICES, SLICED

Switches = Mapping[str, Callable[[Any], Callable[[], None]]]
"""Ways that somebody asks for, by name: what switches a module to each, and returns what undoes that."""
NO_SWITCHES: Switches = MappingProxyType({})


def attentions(module: Any) -> list[Any]:
    """The layers of `module` whose attention can be computed in slices."""
    return [part for part in module.modules() if hasattr(part, "set_attention_slice") and hasattr(part, "processor")]


@contextmanager
def called(module: Any, ways: tuple[str, ...], switches: Switches = NO_SWITCHES) -> Generator[None]:
    """`module` is called in these ways for the length of the context; then its settings are what they were.

    Where `switches` have a way, they do it, unseen by the dry run: what they cast is no part of the call.
    """
    parts = [module, *attentions(module)]
    before = [(vars(part), dict(vars(part))) for part in parts]

    def restore() -> None:
        for now, then in before:
            now.clear()
            now.update(then)

    with ExitStack() as undos:
        undos.callback(restore)
        for way in ways:
            if way in switches:
                with _disable_current_modes():
                    undos.callback(_unseen(switches[way](module)))
            else:
                _switch(module, way)
        yield


def _unseen(undo: Callable[[], None]) -> Callable[[], None]:
    def unseen() -> None:
        with _disable_current_modes():
            undo()

    return unseen


def _switch(module: Any, way: str) -> None:
    name, _, size = way.partition(":")
    if name == SLICED:
        module.enable_slicing()
    elif name == IN_SLICES:
        module.set_attention_slice("auto")
    else:
        module.enable_tiling()
    if size:
        for setting, value in pieces.tiles(module, int(size)).items():
            setattr(module, setting, value)
