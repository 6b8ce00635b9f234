"""What a component is given in the pipeline's own call, and the same for another number of samples."""

import inspect
from collections.abc import Mapping
from functools import wraps
from typing import Any

import torch
from torch._subclasses import FakeTensor

from memplan.names import SHARED
from memplan.probes.fakes.twin import Twin
from memplan.probes.fakes.values import keep, value_of
from memplan.probes.trace import dry_run


class _Reached(Exception):
    """The component is called, with these arguments."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        """By name."""
        super().__init__()
        self.arguments = arguments


def given_to(
    twin: Twin, arguments: Mapping[str, Any], name: str, kind: tuple[str, tuple[int, int]], method: str = "forward"
) -> dict[str, Any]:
    """The arguments by name of the first call of a `method` of component `name`, as fake tensors; {} without one."""
    module, (device, capability) = twin.components()[name], kind
    original = getattr(module, method)

    @wraps(original)
    def stop(*args: Any, **kwargs: Any) -> Any:
        raise _Reached(inspect.signature(original).bind(*args, **kwargs).arguments)

    vars(module)[method] = stop
    try:
        dry_run(twin, arguments, device, None, capability)
    except _Reached as reached:
        return reached.arguments
    finally:
        del vars(module)[method]
    return {}


def resized(given: dict[str, Any], batch: int | None) -> dict[str, Any]:
    """The same arguments with so many samples, each like the last one that was given, or with as many as there are."""
    first = next(iter(given.values()))
    samples = len(first) if isinstance(first, list) or (isinstance(first, torch.Tensor) and first.dim()) else 0

    def sized(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() and len(value) == samples:
            return _repeated(value, batch or samples)
        if type(value) is list and len(value) == samples:
            return value[-1:] * (batch or samples)
        if isinstance(value, dict):
            return {key: sized(entry) for key, entry in value.items()}
        return tuple(map(sized, value)) if type(value) is tuple else value

    return {name: value if name in SHARED else sized(value) for name, value in given.items()}


def _repeated(tensor: torch.Tensor, times: int) -> torch.Tensor:
    """The last sample of a fake tensor so many times, with its values where they are known."""
    if len(tensor) == times:
        return tensor
    known, times_each = value_of(tensor), (times, *[1] * (tensor.dim() - 1))
    made = tensor[-1:].repeat(times_each)
    vars(made).pop("value", None)
    if known and isinstance(made, FakeTensor):
        keep(made, known.tensor[-1:].repeat(times_each), known.memory.sources)
    return made
