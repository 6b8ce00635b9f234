"""Loads the pipeline of a model, component by component, in the dtypes that it was planned in."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from memplan.catalogue.models import find
from memplan.facts import Component, Model

LIBRARIES = ("diffusers", "transformers")
GGUF = ".gguf"


def origin(source: str) -> str:
    """What from_pretrained() takes for the source of a model: the Hub id of a bundled one, or the folder or id."""
    kind, _, name = source.partition(" ")
    return find(name).hub if kind == "bundled" else name


def assembled(model: Model, say: Callable[[str], None], options: Mapping[str, Any]) -> Any:
    """The pipeline on the CPU, its weights mapped from their files where they are of the right dtype.

    `options` go to every from_pretrained(). What no library exports comes with the pipeline, and so do text encoders of
    a checkpoint of one file.
    """
    import diffusers

    place, revision = origin(model.source), ""
    if model.source.startswith("hub "):
        place, _, revision = place.partition("@")
    options = {**options, **({"revision": revision} if revision else {})}
    encoders = [part for part in model.components if part.file and part.library == "transformers"]
    parts: dict[str, Any] = {}
    for part in model.components:
        if part not in encoders and _class(part) is not None:
            say(f"loading {part.name}")
            parts[part.name] = _from_file(part, place, revision) if part.file else _from_place(part, place, options)
    say("loading the rest of the pipeline")
    cls = getattr(diffusers, model.class_name)
    if encoders:
        return _from_checkpoint(cls, encoders, parts)
    rest = {part.name: _dtype(part) for part in model.components if part.name not in parts}
    return cls.from_pretrained(place, torch_dtype={**rest, "default": _dtype(model.components[0])}, **parts, **options)


def _class(part: Component) -> Any:
    return getattr(import_module(part.library), part.class_name, None) if part.library in LIBRARIES else None


def _from_place(part: Component, place: str, options: Mapping[str, Any]) -> Any:
    return _class(part).from_pretrained(place, subfolder=part.name, torch_dtype=_dtype(part), **options)


def _from_file(part: Component, place: str, revision: str) -> Any:
    """A component of diffusers from a checkpoint; its config is named, as diffusers may guess another."""
    import diffusers

    settings: dict[str, Any] = {"config": place, "subfolder": part.name, "torch_dtype": _dtype(part)}
    settings |= {"config_revision": revision} if revision else {}
    if part.file.endswith(GGUF):
        settings["quantization_config"] = diffusers.GGUFQuantizationConfig(compute_dtype=_dtype(part))
    return _class(part).from_single_file(part.file, **settings)


def _from_checkpoint(cls: Any, encoders: list[Component], parts: Mapping[str, Any]) -> Any:
    """The pipeline from a checkpoint with text encoders, each of which has its own dtype afterwards."""
    dtypes = {part.dtype for part in encoders}
    together = dtypes.pop() if len(dtypes) == 1 else "float32"
    pipe = cls.from_single_file(encoders[0].file, torch_dtype=_named(together), **parts)
    for part in encoders:
        getattr(pipe, part.name).to(_dtype(part))
    return pipe


def _dtype(part: Component) -> Any:
    return _named(part.dtype)


def _named(dtype: str) -> Any:
    import torch

    return getattr(torch, dtype)
