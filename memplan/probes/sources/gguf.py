"""A component whose weights come from a GGUF file: stored as the file has them, and dequantized by each linear layer.

diffusers' own code does both, on tensors without bytes: it renames and splits the tensors of the file, and its layers
make their weight in the compute dtype for as long as they run, through every intermediate tensor of that type.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import IntEnum
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from diffusers.loaders import single_file_model as loader
from diffusers.utils import is_gguf_available
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.errors import BadInput, Unsupported
from memplan.probes.fakes.fake import make_castable
from memplan.probes.fakes.quantized import gguf_fake
from memplan.probes.fakes.twin import Twin
from memplan.probes.sources.gguf_headers import PLAIN, TYPES, gguf_tensors
from memplan.probes.sources.headers import StoredTensor

LIBRARY = "diffusers.quantizers.gguf.utils"
"""diffusers' own layers and dequantization; it cannot be imported without the package gguf."""


def with_gguf(twin: Twin, component: str, path: Path) -> Twin:
    """`twin`, whose `component` becomes what `from_single_file` makes of the GGUF file at `path`.

    The layers compute in the dtype that the component has. Raises BadInput for a file that is not whole or holds
    another model, Unsupported for types and places that diffusers does not dequantize.
    """
    module = twin.components().get(component)
    if module is None:
        raise BadInput(f"{twin.name} has no component {component}; it has {', '.join(twin.components())}.")
    surplus = quantize(module, path, twin.mode)
    known = twin.assumptions
    if surplus:
        known += (f"{path.name} holds {len(surplus)} tensors that {component} has no place for, as {surplus[0]}",)
    files = {**twin.files, component: str(path)}
    cast = twin.cast | {component}  # load_gguf_checkpoint() copies what it has mapped
    return replace(twin, name=f"{twin.name},{component}={path.name}", files=files, assumptions=known, cast=cast)


def quantize(module: Any, path: Path, mode: FakeTensorMode) -> list[str]:
    """Give `module`, whose weights are fakes of `mode`, those of the GGUF file. Returns the names it has no use for."""
    expected = module.state_dict(keep_vars=True)
    loaded = _as_loaded(module, path, {name: _without_bytes(path, name, t) for name, t in gguf_tensors(path).items()})
    for name, tensor in expected.items():
        found = _shape(loaded[name]) if name in loaded else None
        if found != tuple(tensor.shape):
            missing = f"holds no {name}" if found is None else f"has {name} of shape {found}"
            kind = type(module).__name__
            raise BadInput(f"{path} {missing}, and this {kind} needs it of shape {tuple(tensor.shape)}: other models.")
    quantized = {name: loaded[name] for name in expected if hasattr(loaded[name], "quant_type")}
    for name, weight in quantized.items():
        if not set(name.split(".")) & set(module._keep_in_fp32_modules or ()):  # those diffusers makes float32 again
            _put(module, path, name, weight, mode)
    make_castable(module)
    return sorted(loaded.keys() - expected.keys())


def _as_loaded(module: Any, path: Path, stored: dict[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """The tensors by diffusers' names, renamed and split as it does."""
    expected = module.state_dict()
    if not loader._should_convert_state_dict_to_diffusers(expected, stored):
        return stored
    kind: Any = loader._get_single_file_loadable_mapping_class(type(module))
    if kind is None:
        raise Unsupported(f"diffusers loads no {type(module).__name__} from one file, as {path} is.")
    convert: Any = loader.SINGLE_FILE_LOADABLE_CLASSES[kind]["checkpoint_mapping_fn"]
    try:
        converted: Mapping[str, torch.Tensor] = convert(config=dict(module.config), checkpoint=stored)
    except Exception as error:  # converters trust the names and shapes that they find
        raise BadInput(f"diffusers makes no {kind} of the tensors in {path}: {error!r}.") from error
    return converted


def _put(module: Any, path: Path, name: str, weight: Any, mode: FakeTensorMode) -> None:
    """Set a quantized weight, in a layer that dequantizes it."""
    owner, _, leaf = name.rpartition(".")
    layer: Any = module.get_submodule(owner)
    if not isinstance(layer, torch.nn.Linear) or leaf != "weight":
        raise Unsupported(
            f"{path} stores {name} as {weight.quant_type.name}, and diffusers dequantizes the weights of linear layers "
            f"alone: take a file that keeps it in F32 or F16."
        )
    sizes, has_bias = (layer.in_features, layer.out_features), layer._parameters["bias"] is not None
    new = library().GGUFLinear(*sizes, has_bias, compute_dtype=module.dtype, device="meta")
    new.weight, new.bias = gguf_fake(weight, mode), layer.bias
    parent, _, last = owner.rpartition(".")
    module.get_submodule(parent)._modules[last] = new.eval()


# ---- tensors of the file ---------------------------------------------------------------------------------------------
def _without_bytes(path: Path, name: str, tensor: StoredTensor) -> torch.Tensor:
    """What diffusers makes of a tensor when it reads the file, on the meta device."""
    if tensor.dtype in PLAIN.values():
        return torch.empty(tensor.shape, dtype=getattr(torch, tensor.dtype), device="meta")
    kind = library().gguf.GGMLQuantizationType[tensor.dtype]
    known = library().SUPPORTED_GGUF_QUANT_TYPES
    if kind not in known:
        raise Unsupported(
            f"{path} stores {name} as {tensor.dtype}, which diffusers does not dequantize. "
            f"It does: {', '.join(sorted(k.name for k in known))}."
        )
    *rows, last = tensor.shape or (1,)
    _, block, item = TYPES[tensor.dtype]
    data = torch.empty((*rows, last // block * item), dtype=torch.uint8, device="meta")
    made: torch.Tensor = library().GGUFParameter(data, quant_type=kind)
    return made


def _shape(tensor: Any) -> tuple[int, ...]:
    """The shape of what is stored, in elements."""
    return tuple(tensor.quant_shape if hasattr(tensor, "quant_type") else tensor.shape)


# ---- the library -----------------------------------------------------------------------------------------------------
@cache
def library() -> Any:
    """diffusers' module. It takes no more of the package gguf than two tables, so that one need not be installed."""
    if is_gguf_available():
        return importlib.import_module(LIBRARY)
    sys.modules["gguf"] = _tables()
    try:
        return importlib.import_module(LIBRARY)
    finally:
        for name in ("gguf", LIBRARY):
            sys.modules.pop(name, None)
        package, _, last = LIBRARY.rpartition(".")
        vars(sys.modules[package]).pop(last, None)


def _tables() -> ModuleType:
    """The numbers of ggml's types and the sizes of their blocks, as the package gguf has them."""
    tables: Any = ModuleType("gguf")
    kinds: Any = IntEnum  # made from a table, which type checkers do not follow
    tables.GGMLQuantizationType = kinds("GGMLQuantizationType", {name: code for name, (code, _, _) in TYPES.items()})
    tables.GGML_QUANT_SIZES = dict(_sizes(tables.GGMLQuantizationType))
    return tables


def _sizes(kinds: Any) -> Iterator[tuple[Any, tuple[int, int]]]:
    for number, block, item in TYPES.values():
        yield kinds(number), (block, item)
