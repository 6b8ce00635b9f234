"""Measures a pipeline: what each component weighs, how it splits into groups, what the libraries refuse for it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

import torch
from diffusers import ModelMixin
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import PreTrainedModel

from memplan.facts import Component, Model, Weight, not_matching_flows
from memplan.probes.fakes import quantized
from memplan.probes.pipeline import caching, casting, grouping, modular, prompts, quantizing
from memplan.probes.trace import variants
from memplan.probes.trace.regions import regions

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate")
NOWHERE: Mapping[str, str] = MappingProxyType({})


def measure(
    pipe: Any,
    name: str = "",
    source: str = "",
    files: Mapping[str, str] = NOWHERE,
    cast: Collection[str] = (),
) -> Model:
    """What `pipe` is made of, from fake or real weights; the pipeline is left as it was.

    A weight that two components share is counted in the first of them. `files` are the checkpoints of one file from
    which components are loaded, by component; those in `cast` are loaded in another dtype than they are stored in.
    """
    modules = {key: part for key, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    owner: dict[int, str] = {}
    shared = _shared(modules)
    with unset_fake_temporarily():  # the copies that are hooked must be plain, even where fakes are being made
        found = [_component(key, module, owner, shared.get(key)) for key, module in modules.items()]
        own = modular.lacks_of_parts(pipe, modules)
        components = tuple(
            replace(
                part,
                file=files.get(part.name, ""),
                mapped=part.name not in cast,
                lacks=(*part.lacks, *own.get(part.name, {}).items()),
            )
            for part in found
        )
    # The library asks for its exclusions only about components that its sequence does not name.
    order, excluded = _offload_order(pipe, modules), getattr(pipe, "_exclude_from_cpu_offload", ())
    return Model(
        name=name or type(pipe).__name__,
        class_name=type(pipe).__name__,
        components=components,
        offload_order=order,
        never_offloaded=tuple(key for key in excluded if key in modules and key not in order),
        never_sequential=tuple(key for key in excluded if key in modules),
        source=source,
        versions=tuple(_versions()),
        lacks=(*modular.lacks(pipe), *prompts.lacks(pipe), *_guidance(pipe)),
    )


def _guidance(pipe: Any) -> Iterator[tuple[str, str]]:
    """(technique, sentence) where the pipeline's scheduler is not one that the technique is for."""
    words = not_matching_flows(getattr(pipe, "scheduler", None))
    if words:
        yield "cfg_zero_star", words


def on_device(pipe: Any) -> frozenset[str]:
    """The components of a live pipeline whose weights are on a device, or some of them."""
    modules = {key: part for key, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return frozenset(key for key, module in modules.items() if any(map(_away, module.parameters())))


def _away(weight: torch.Tensor) -> bool:
    return weight.device.type not in ("cpu", "meta")


def _offload_order(pipe: Any, modules: dict[str, torch.nn.Module]) -> tuple[str, ...]:
    # A name that comes twice counts where it comes first: the library takes each component off its list once.
    sequence = getattr(type(pipe), "model_cpu_offload_seq", None) or ""
    return tuple(dict.fromkeys(key for key in sequence.split("->") if key in modules))


def _versions() -> Iterator[tuple[str, str]]:
    for library in LIBRARIES:
        try:
            yield library, version(library)
        except PackageNotFoundError:
            continue


def _shared(modules: dict[str, torch.nn.Module]) -> dict[str, str]:
    """Of each component that shares weights the sentence that says with which other."""
    holders: dict[int, list[str]] = {}
    for key, module in modules.items():
        for _, tensor, _ in _tensors(module):
            holders.setdefault(id(tensor), []).append(key)
    pairs = {key: other for keys in holders.values() for key in keys for other in keys if key != other}
    return {
        key: f"{key} shares weights with {other}: one can't be moved or cast without the other"
        for key, other in pairs.items()
    }


def _component(key: str, module: torch.nn.Module, owner: dict[int, str], shared: str | None) -> Component:
    own = [(path, t, buffer) for path, t, buffer in _tensors(module) if id(t) not in owner]
    owner.update({id(t): key for _, t, _ in own})
    index = {path: number for number, (path, _, _) in enumerate(own)}
    dtype = _dtype(module)
    groups = grouping.groupings(module, index)
    formats = dict(quantized.lacks(module))
    uncast = formats.get("layerwise_casting") or casting.lack(module, dtype)
    lacks = dict(grouping.lacks(module, groups)) | formats
    lacks |= {"layerwise_casting": uncast} if uncast else {}
    lacks |= dict(variants.lacks(module))
    caches, uncached = caching.caches(module)
    lacks |= uncached
    unquantizable = quantizing.lack(module)
    lacks |= {"quantization": unquantizable} if unquantizable else {}
    by_loaders = None if unquantizable else quantizing.loading_lack(module)
    lacks |= {"quantized_loading": by_loaders} if by_loaders else {}
    columns = {} if unquantizable else quantizing.columns(module)
    lacks |= {"own_weights": shared} if shared else {}
    if type(module).forward is torch.nn.Module.forward and not hasattr(module, "decode"):
        lacks |= {"call": f"{type(module).__name__} has no forward(), so a dry run does not see who reads its weights"}
    return Component(
        name=key,
        class_name=type(module).__name__,
        library=_library(module),
        dtype=dtype,
        weights=tuple(_weight(path, t, buffer, columns) for path, t, buffer in own),
        groupings=groups,
        cast=() if uncast else casting.cast(module, index),
        cast_skip=() if uncast else casting.cast_skip(module),
        lacks=tuple(lacks.items()),
        spared=() if unquantizable else tuple(quantizing.spared(module)),
        regions=regions(module),
        caches=caches,
    )


def _weight(path: str, tensor: torch.Tensor, buffer: bool, columns: Mapping[int, int]) -> Weight:
    return Weight(path, *quantized.stored(tensor), buffer, columns.get(id(tensor), 0), quantized.parts(tensor))


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Name, tensor and whether it is a buffer; ties under their first name, empty tensors left out."""
    for path, parameter in module.named_parameters():
        if parameter.numel():
            yield path, parameter, False
    for path, buffer in module.named_buffers():
        if buffer.numel():
            yield path, buffer, True


def _library(module: torch.nn.Module) -> str:
    if isinstance(module, ModelMixin):
        return "diffusers"
    return "transformers" if isinstance(module, PreTrainedModel) else "other"


def _dtype(module: torch.nn.Module) -> str:
    """The dtype it computes in: what its library says, else that of its first floating weight."""
    if isinstance(module, (ModelMixin, PreTrainedModel)) and any(True for _ in module.parameters()):
        return _name(module.dtype)
    floating = (t.dtype for _, t, _ in _tensors(module) if t.is_floating_point())
    return _name(next(floating, torch.float32))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
