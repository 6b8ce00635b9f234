"""The ways back that placements share: weights to the devices they came from, modules to the forward they had."""

from typing import Any

from memplan.strategy import Undo


def homes(module: Any) -> Undo:
    """Sends each weight of `module` back to the device on which it is now."""
    tables = [table for part in module.modules() for table in (part._parameters, part._buffers)]
    found = [(table, key, weight.device) for table in tables for key, weight in table.items() if weight is not None]

    def restore() -> None:
        for table, key, device in found:
            table[key].data = table[key].data.to(device)

    return restore


def attributes(thing: Any, *names: str) -> Undo:
    """Gives `thing` the instance attributes `names` that it has now, and takes away those it lacks now."""
    found = {name: vars(thing)[name] for name in names if name in vars(thing)}

    def restore() -> None:
        for name in names:
            vars(thing).pop(name, None)
        vars(thing).update(found)

    return restore
