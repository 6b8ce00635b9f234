"""Modules from their configs alone, in the dtypes that the library's own loader would give them."""

import copy
import importlib
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.errors import BadInput, Unsupported
from memplan.probes.fakes.fake import fake_in_place
from memplan.probes.sources.bounds import bounded


def class_of(library: str, class_name: str) -> Any:
    """The class that model_index.json names: of diffusers, transformers or one of diffusers' pipeline packages."""
    home = library if library in ("diffusers", "transformers") else f"diffusers.pipelines.{library}"
    try:
        return getattr(importlib.import_module(home), class_name)
    except (ImportError, AttributeError) as error:
        raise BadInput(
            f"{library} has no class {class_name} here ({error}). Check the name, or install the version of {library} "
            f"that the model was made for."
        ) from error


def is_module(cls: Any) -> bool:
    """Whether the class is a component with weights."""
    return isinstance(cls, type) and issubclass(cls, torch.nn.Module)


def fake_module(cls: Any, config: Mapping[str, Any], dtype: torch.dtype, mode: FakeTensorMode) -> Any:
    """A module of `cls` with fake weights, as from_pretrained(torch_dtype=dtype) would load it.

    Raises Unsupported for a config of quantized weights, and what the class raises for a config that it cannot read.
    """
    from accelerate import init_empty_weights

    if "quantization_config" in config:
        settings = config["quantization_config"]
        method = settings.get("quant_method") if isinstance(settings, dict) else None
        method = method or "an unknown method"
        raise Unsupported(f"its weights are quantized ({method}); give the folder of the unquantized model")
    with default_dtype(dtype), init_empty_weights(), bounded():
        module = _instance(cls, copy.deepcopy(dict(config)), dtype)
    if hasattr(module, "tie_weights"):
        module.tie_weights()  # the constructor ties too, but each parameter is replaced as it is registered
    _cast_as_loaded(module, dtype)
    fake_in_place(module, mode)
    module.eval()
    return module


def _instance(cls: Any, config: dict[str, Any], dtype: torch.dtype) -> Any:
    if hasattr(cls, "_from_config"):  # transformers; models within models go by the dtype in their config
        return cls._from_config(cls.config_class.from_dict(config), dtype=dtype)
    return cls.from_config(config)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Generator[None]:
    """New tensors get `dtype`, as both libraries' loaders arrange it while a model is built."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# ---- dtypes ---------------------------------------------------------------------------------------------------------
def _cast_as_loaded(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Give every stored tensor the dtype of the loader's rules; tensors that are not stored keep their own."""
    kept = _kept_in_fp32(module, dtype)
    stored = module.state_dict(keep_vars=True)
    for name, tensor in stored.items():
        wanted = torch.float32 if kept.search(name) else _loaded(module, tensor, dtype)
        if tensor.is_floating_point() and tensor.dtype != wanted:
            tensor.data = tensor.data.to(wanted)


def _loaded(module: torch.nn.Module, tensor: torch.Tensor, dtype: torch.dtype) -> torch.dtype:
    """diffusers casts whatever is stored; transformers leaves what the constructor has set."""
    return tensor.dtype if hasattr(module, "_get_dtype_plan") else dtype


def _kept_in_fp32(module: Any, dtype: torch.dtype) -> re.Pattern[str]:
    """A pattern of the tensor names that stay in float32 under `dtype`."""
    if dtype == torch.float32:
        return re.compile(r"(?!)")
    if hasattr(module, "_get_dtype_plan"):  # transformers: patterns found anywhere in the name
        patterns = [pattern.replace("*", ".*") for pattern in module._get_dtype_plan(dtype)]
    else:  # diffusers: names of modules on the path
        patterns = [rf"(?:^|\.){re.escape(name)}(?:\.|$)" for name in module._keep_in_fp32_modules or ()]
    return re.compile("|".join(patterns) or r"(?!)")
