"""Bundled models at full size with random weights in host memory: nothing is downloaded."""

import copy
from collections.abc import Mapping
from typing import Any

import torch

from memplan.catalogue.models import BundledModel, Part, find
from memplan.probes.fakes.twin import modules_of
from memplan.probes.sources.assembly import dtype_named
from memplan.probes.sources.bundled import twin_of
from memplan.probes.sources.skeleton import class_of, default_dtype

DEVIATION = 0.02
"""The standard deviation of matrices, as libraries initialise them: activations neither vanish nor overflow at once."""
PATTERN = 1 << 22
"""Random numbers that are made; longer tensors repeat them. Neither allocators nor kernels see the difference."""


def full_size(name: str, seed: int = 0) -> tuple[Any, dict[str, Any]]:
    """The pipeline of a bundled model with random weights, and the arguments of its published example."""
    return random_pipeline(find(name), seed)


def random_pipeline(model: BundledModel, seed: int = 0) -> tuple[Any, dict[str, Any]]:
    """The same of a model at hand: dtypes and all but the weights are those of memplan's twin of it."""
    twin = twin_of(model)
    generator = torch.Generator().manual_seed(seed)
    parts = {name: _component(model, name, fake, generator) for name, fake in modules_of(twin.pipe).items()}
    twin.pipe.register_modules(**parts)
    return twin.pipe, dict(twin.call)


def _component(model: BundledModel, name: str, fake: Any, generator: torch.Generator) -> Any:
    from accelerate import init_empty_weights

    part = model.components[name]
    dtype = dtype_named(part.dtype or model.dtype)
    with default_dtype(dtype), init_empty_weights():
        module = _instance(part, dtype)
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    dtypes = {key: tensor.dtype for key, tensor in (*fake.named_parameters(), *fake.named_buffers())}
    _fill(module, dtypes, generator)
    return module.eval()


def _instance(part: Part, dtype: torch.dtype) -> Any:
    """A module of the part's class, with weights that are nowhere."""
    cls, config = class_of(part.library, part.class_name), copy.deepcopy(dict(part.config))
    if hasattr(cls, "_from_config"):  # transformers
        return cls._from_config(cls.config_class.from_dict(config), dtype=dtype)
    return cls.from_config(config)


def _fill(module: Any, dtypes: Mapping[str, torch.dtype], generator: torch.Generator) -> None:
    """Give each parameter values of its dtype, tied ones the same tensor; buffers keep theirs, in their dtype."""
    pattern = torch.randn(PATTERN, generator=generator) * DEVIATION
    made: dict[int, torch.nn.Parameter] = {}
    for path, parameter in list(module.named_parameters(remove_duplicate=False)):
        owner, _, key = path.rpartition(".")
        if id(parameter) not in made:
            value = _values(path, parameter.shape, dtypes.get(path, parameter.dtype), pattern)
            made[id(parameter)] = torch.nn.Parameter(value, requires_grad=False)
        module.get_submodule(owner)._parameters[key] = made[id(parameter)]
    for path, buffer in list(module.named_buffers()):
        owner, _, key = path.rpartition(".")
        kept = torch.zeros(buffer.shape, dtype=buffer.dtype) if buffer.is_meta else buffer
        module.get_submodule(owner)._buffers[key] = kept.to(dtypes.get(path, kept.dtype))


def _values(path: str, shape: torch.Size, dtype: torch.dtype, pattern: torch.Tensor) -> torch.Tensor:
    """Ones for the scales of norms, zeros for biases, else random numbers."""
    if len(shape) < 2:
        return torch.zeros(shape, dtype=dtype) if path.endswith("bias") else torch.ones(shape, dtype=dtype)
    value = torch.empty(shape, dtype=dtype)
    flat = value.view(-1)
    whole = flat.numel() // PATTERN * PATTERN
    flat[:whole].view(-1, PATTERN).copy_(pattern)
    flat[whole:].copy_(pattern[: flat.numel() - whole])
    return value
