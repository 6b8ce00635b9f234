"""Loads the pipeline of a model, component by component, in the dtypes that it was planned in."""

import json
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from memplan.catalogue.models import find
from memplan.errors import LoadFailed
from memplan.faces.options import Options
from memplan.faces.parts import GGUF, dtypes, encoders, together
from memplan.facts import GIB, Component, Model
from memplan.probes.sources.hub_words import out_of_reach

LIBRARIES = ("diffusers", "transformers")
NO_OPTIONS = Options()


def origin(source: str) -> str:
    """What from_pretrained() takes for the source of a model: the Hub id of a bundled one, or the folder or id."""
    kind, _, name = source.partition(" ")
    return find(name).hub if kind == "bundled" else name


def _place(model: Model) -> tuple[str, str]:
    """That without its revision, and the revision, "" where none is named."""
    place = origin(model.source)
    if not model.source.startswith("hub "):
        return place, ""
    place, _, revision = place.partition("@")
    return place, revision


def assembled(model: Model, say: Callable[[str], None], options: Options = NO_OPTIONS) -> Any:
    """The pipeline on the CPU, its weights mapped from their files where they are of the right dtype.

    What no library exports comes with the pipeline, and so do text encoders of a checkpoint of one file. The parts of
    `options` are taken as they are. Raises LoadFailed, which names the component, where one cannot be loaded.
    """
    import diffusers

    place, revision = _place(model)
    weights = {"variant": model.variant} if model.variant else {}
    options = replace(options, revision=revision or options.revision, weights={**options.weights, **weights})
    own = [part for part in model.components if part.name not in options.parts]
    texts = encoders(own)
    parts: dict[str, Any] = dict(options.parts)
    for part in own:
        if part not in texts and _class(part) is not None:
            say(f"loading {part.name}")
            with _named_in_errors(model, part.name, parts):
                load = _from_file if part.file else _from_place
                parts[part.name] = load(part, place, options)
    say("loading the rest of the pipeline")
    with _named_in_errors(model, "", parts):
        cls = getattr(diffusers, model.class_name)
        if texts:
            return _from_checkpoint(cls, texts, place, parts, options)
        rest = dtypes([part for part in own if part.name not in parts] or model.components)
        table = {name: _dtype(dtype) for name, dtype in rest.items()}
        return cls.from_pretrained(place, dtype=table, **parts, **options.pretrained())


def _class(part: Component) -> Any:
    return getattr(import_module(part.library), part.class_name, None) if part.library in LIBRARIES else None


def _from_place(part: Component, place: str, options: Options) -> Any:
    """A component of either library; of one that has no files of the variant, those of none."""
    arguments = {**options.pretrained(), "subfolder": part.name, "dtype": _dtype(part.dtype)}
    folder = Path(place) / part.name
    if options.variant and folder.is_dir() and not [*folder.glob(f"*.{options.variant}*")]:
        del arguments["variant"]
    return _class(part).from_pretrained(place, **arguments)


def _from_file(part: Component, place: str, options: Options) -> Any:
    """A component of diffusers from a checkpoint; its config is named, as diffusers may guess another."""
    import diffusers

    arguments = {"config": place, "subfolder": part.name, "dtype": _dtype(part.dtype)}
    if part.file.endswith(GGUF):
        arguments["quantization_config"] = diffusers.GGUFQuantizationConfig(compute_dtype=_dtype(part.dtype))
    return _class(part).from_single_file(part.file, **arguments, **options.single_file())


def _from_checkpoint(cls: Any, texts: list[Component], place: str, parts: Mapping[str, Any], options: Options) -> Any:
    """The pipeline from a checkpoint with text encoders, each of which has its own dtype afterwards."""
    arguments = {"config": place, "dtype": _dtype(together(texts))}
    pipe = cls.from_single_file(texts[0].file, **arguments, **parts, **options.whole_file())
    for part in texts:
        getattr(pipe, part.name).to(_dtype(part.dtype))
    return pipe


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


# ---- what fails ------------------------------------------------------------------------------------------------------
@contextmanager
def _named_in_errors(model: Model, name: str, done: Mapping[str, Any]) -> Generator[None]:
    """Raises LoadFailed for whatever goes wrong: of which component, how much there was, and what to do."""
    try:
        yield
    except Exception as error:
        what = f"{name} of {model.name} ({_size(model, [name])})" if name else f"the rest of {model.name}"
        before = [part for part in done if any(part == other.name for other in model.components)]
        there = f" after {', '.join(before)} ({_size(model, before)})" if before else ""
        cause = out_of_reach(error) or str(error) or type(error).__name__
        raise LoadFailed(
            f"{what} could not be loaded{there}: {cause}. Nothing of it is kept in memory. {_cure(model, name, error)}"
        ) from error


def _size(model: Model, names: Iterable[str]) -> str:
    return f"{sum(model.component(name).size for name in names) / GIB:.2f} GiB"


def _cure(model: Model, name: str, error: Exception) -> str:
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "Close what else takes memory, or choose a plan that needs less."
    place = json.dumps(_place(model)[0], ensure_ascii=False)
    again = f'{model.component(name).class_name}.from_pretrained({place}, subfolder="{name}")' if name else ""
    again = again or f"{model.class_name}.from_pretrained({place})"
    file = model.component(name).file if name else ""
    if file:
        return f"See whether {file} is whole and a {model.component(name).class_name}, then load again."
    return f"{again} by itself should say the same: mend that, then load again."
