"""What a prediction rests on beside the arguments of a call: the components of a pipeline as they are set up now."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch

PLAIN = (bool, int, float, str, type(None))


def state(pipe: Any) -> str:
    """Tells apart a pipeline whose modules, weights' dtypes and devices, hooks or settings have changed in between."""
    words = hashlib.sha256()
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            for path, module in part.named_modules():
                words.update(repr((name, path, type(module).__name__, *_settings(module))).encode())
    return words.hexdigest()


def _settings(module: torch.nn.Module) -> Iterator[Any]:
    """Plain attributes by value, others by their type, as hooks and processors are; of own weights dtype and device."""
    for name, value in vars(module).items():
        if name not in ("_parameters", "_buffers", "_modules"):
            yield name, value if isinstance(value, PLAIN) else (type(value).__name__, _length(value))
    for weight in (*module._parameters.values(), *module._buffers.values()):
        yield None if weight is None else (weight.dtype, weight.device.type, tuple(weight.shape))


def _length(value: Any) -> int:
    """How many hooks a module's own table of them has."""
    return len(value) if isinstance(value, dict) else 0
