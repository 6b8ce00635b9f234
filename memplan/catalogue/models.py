"""The bundled models: what their publishers' configs say, found by any name that people type."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from memplan.errors import BadInput


@dataclass(frozen=True, eq=False)
class Part:
    """One component: its class, its published config and, for one with weights, what its publisher ships.

    `dtype` is set where the published example loads this component in another dtype than the rest.
    `published_parameters` counts tied tensors once. Where only the rounded sizes of the files are known they are in
    `published_files`, e.g. "9.99 GB + 6.31 GB in bfloat16", with stored buffers. `source` says where that is from.
    """

    library: str
    class_name: str
    config: Mapping[str, Any]
    dtype: str | None = None
    published_parameters: int | None = None
    published_files: str = ""
    source: str = ""


@dataclass(frozen=True, eq=False)
class BundledModel:
    """A published pipeline. `dtype` is the one that its published example loads it in.

    `arguments` go to the pipeline's constructor beside the components; `call` are arguments of the published example
    that the pipeline does not choose by itself. `published_files` is the size of all components together, for a model
    of which some are not known one by one; `source` says where it is from.
    """

    name: str
    aliases: tuple[str, ...]
    hub: str
    url: str
    pipeline: str
    dtype: str
    components: Mapping[str, Part]
    arguments: Mapping[str, Any]
    call: Mapping[str, Any]
    published_files: str = ""
    source: str = ""

    @property
    def known_as(self) -> tuple[str, ...]:
        """Every name that finds it: its own, the aliases and the Hub id."""
        return (self.name, *self.aliases, self.hub)


def names() -> tuple[str, ...]:
    """The names of all bundled models, in alphabetical order."""
    return tuple(sorted({model.name for model in _by_any_name().values()}))


def is_bundled(name: str) -> bool:
    """Whether `name` is a bundled model's name, alias or Hub id; case and underscores do not matter."""
    return _plain(name) in _by_any_name()


def alias(name: str) -> str | None:
    """The name of the bundled model that `name` is a shorter or another word for, or None where it is its own."""
    found = _by_any_name().get(_plain(name))
    return found.name if found and _plain(name) not in (_plain(found.name), _plain(found.hub)) else None


def find(name: str) -> BundledModel:
    """The bundled model of that name, alias or Hub id. Raises BadInput that names the nearest ones."""
    if found := _by_any_name().get(_plain(name)):
        return found
    raise BadInput(f"memplan has no bundled model named {name!r}. {nearest(name)}")


def nearest(name: str) -> str:
    """A sentence that names the bundled models nearest to `name`, and all of them."""
    table = _by_any_name()
    near = dict.fromkeys(table[key].name for key in get_close_matches(_plain(name), table, n=3, cutoff=0.5))
    question = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{question}Bundled: {', '.join(names())}."


# ---- reading --------------------------------------------------------------------------------------------------------
def _plain(name: str) -> str:
    return name.strip().casefold().replace("_", "-").replace(" ", "-")


@cache
def _by_any_name() -> dict[str, BundledModel]:
    catalogue = files("memplan.catalogue")
    shared = json.loads((catalogue / "components.json").read_text("utf-8"))
    paths = (path for path in (catalogue / "models").iterdir() if path.name.endswith(".json"))
    models = [_model(json.loads(path.read_text("utf-8")), shared) for path in paths]
    return {_plain(name): model for model in models for name in model.known_as}


def _model(data: dict[str, Any], shared: Mapping[str, Any]) -> BundledModel:
    return BundledModel(
        name=data["name"],
        aliases=tuple(data["aliases"]),
        hub=data["hub"],
        url=data["url"],
        pipeline=data["pipeline"],
        dtype=data["dtype"],
        components={name: _part(part, shared) for name, part in data["components"].items()},
        arguments=data.get("arguments", {}),
        call=data.get("call", {}),
        published_files=data.get("published_files", ""),
        source=data.get("source", ""),
    )


def _part(data: dict[str, Any], shared: Mapping[str, Any]) -> Part:
    """A component; one that names a shared component takes everything from it, with its own config on top."""
    base: dict[str, Any] = shared[data["shared"]] if "shared" in data else {}
    merged: dict[str, Any] = {**base, **data, "config": {**base.get("config", {}), **data.get("config", {})}}
    return Part(
        library=merged["library"],
        class_name=merged["class"],
        config=merged["config"],
        dtype=merged.get("dtype"),
        published_parameters=merged.get("published_parameters"),
        published_files=merged.get("published_files", ""),
        source=merged.get("source", ""),
    )
