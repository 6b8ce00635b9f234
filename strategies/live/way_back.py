"""The ways back that strategies share: weights to the devices they came from, modules to what they had."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from memplan.strategy import Undo


def homes(module: Any) -> Undo:
    """Sends each weight of `module` back to the device on which it is now.

    A quantized weight is more than its data: its layer knows what goes with it.
    """
    import torch

    tables = [(part, table) for part in module.modules() for table in (part._parameters, part._buffers)]
    found = [(part, table, key, w.device) for part, table in tables for key, w in table.items() if w is not None]

    def restore() -> None:
        for part, table, key, device in found:
            if type(table[key]) in (torch.nn.Parameter, torch.Tensor):
                table[key].data = table[key].data.to(device)
            else:
                part.to(device)

    return restore


def originals(weights: Iterable[Any], cast: Callable[[], None]) -> Undo:
    """Calls `cast`, and keeps in host memory what those `weights` held whose dtype it changes.

    The value gives each its own again, on the device where it is now; where `cast` fails, that is done at once.
    """
    before = [(weight, weight.device, weight.data.cpu()) for weight in weights]

    def restore(kept: Iterable[tuple[Any, Any, Any]]) -> None:
        for weight, device, data in kept:
            weight.data = data.to(device)

    try:
        cast()
    except BaseException:
        restore(before)
        raise
    return partial(restore, [entry for entry in before if entry[0].dtype != entry[2].dtype])


def registries(module: Any) -> Undo:
    """Has the registries of diffusers' hooks that are in `module` now list what they list now."""
    found = [vars(part)["_diffusers_hook"] for part in module.modules() if "_diffusers_hook" in vars(part)]
    before = [(each, dict(each.hooks), list(each._hook_order), list(each._fn_refs)) for each in found]

    def restore() -> None:
        for each, hooks, order, references in before:
            each.hooks, each._hook_order, each._fn_refs = hooks, order, references

    return restore


def done(act: Callable[[], Any], undo: Undo) -> Undo:
    """Calls `act`; the value is `undo`. Where `act` fails, that is called at once."""
    try:
        act()
    except BaseException:
        undo()
        raise
    return undo


def attributes(thing: Any, *names: str) -> Undo:
    """Gives `thing` the instance attributes `names` that it has now, and takes away those it lacks now."""
    found = {name: vars(thing)[name] for name in names if name in vars(thing)}

    def restore() -> None:
        for name in names:
            vars(thing).pop(name, None)
        vars(thing).update(found)

    return restore


def switched(things: Iterable[Any], switch: Callable[[], None]) -> Undo:
    """Calls `switch`; the value gives each instance attribute of `things` that it changed its former value.

    Where `switch` fails, that is done at once.
    """
    before = [(vars(thing), dict(vars(thing))) for thing in things]

    def changes() -> list[tuple[dict[str, Any], dict[str, Any], list[str]]]:
        differ = [[name for name in now if name not in then or then[name] is not now[name]] for now, then in before]
        return [(now, then, names) for (now, then), names in zip(before, differ, strict=True)]

    def restore(changed: Iterable[tuple[dict[str, Any], dict[str, Any], list[str]]]) -> None:
        for now, then, names in changed:
            for name in names:
                del now[name]
            now.update({name: then[name] for name in names if name in then})

    try:
        switch()
    except BaseException:
        restore(changes())
        raise
    return partial(restore, changes())
