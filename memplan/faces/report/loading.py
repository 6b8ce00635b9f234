"""The lines of a script that load a pipeline: from its own place, or with components from a checkpoint of one file."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from textwrap import indent
from types import MappingProxyType

from memplan.faces.parts import DEFAULT, GGUF, dtypes, encoders, together
from memplan.facts import Component, Model
from memplan.strategy import Config

FROM_FILE = "from_single_file"
QUANTIZATION = "quantization_config"
MAPPING = "from diffusers import PipelineQuantizationConfig"
Configs = Mapping[str, Config]
"""What components are quantized with, by component."""


@dataclass(frozen=True)
class Loading:
    """Imports, and the lines after which `pipe` is there. Values of arguments are code.

    `configured` are the components that come with their config applied.
    """

    imports: tuple[str, ...]
    lines: tuple[str, ...]
    configured: frozenset[str] = frozenset()


def loading(model: Model, source: str, configs: Configs = MappingProxyType({})) -> Loading:
    """How `model` is loaded, whose pipeline is at `source`: a Hub id, perhaps with a revision, or a folder.

    A pipeline's from_single_file() wants every component that the file does not hold. What comes from one file cannot
    be quantized on the way: diffusers takes it for quantized already (`pre_quantized` in quantizers/base.py).
    """
    place = _Place(source, model.source.startswith("hub "))
    held = [part for part in model.components if part.file]
    texts = encoders(held)
    used = {name: config for name, config in configs.items() if not model.component(name).file}
    load = _whole(model, place, texts, used) if texts else _from_place(model, place, held, used)
    imports = (*load.imports, *(line for config in used.values() for line in config.imports))
    return Loading(imports, load.lines, frozenset(used))


@dataclass(frozen=True)
class _Place:
    """Where the pipeline's own configs and weights are."""

    source: str
    on_hub: bool

    def arguments(self, revision: str = "revision") -> dict[str, str]:
        """Those that name it; the first has no name."""
        hub_id, at, which = self.source.partition("@")
        return (
            {"": json.dumps(hub_id), revision: json.dumps(which)}
            if self.on_hub and at
            else {"": json.dumps(self.source)}
        )


def _from_place(model: Model, place: _Place, held: list[Component], configs: Configs) -> Loading:
    """A pipeline from its own place, but for components of diffusers that are `held` by checkpoints."""
    rest = [part for part in model.components if not part.file]
    arguments = {part.name: part.name for part in held} | {"dtype": dtypes_as_code(rest or held)}
    arguments |= {"variant": json.dumps(model.variant)} if model.variant else {}
    arguments |= {QUANTIZATION: mapping(configs)} if configs else {}
    pipe = _call(f"pipe = {model.class_name}.from_pretrained", place.arguments(), arguments)
    imports = [_import("diffusers", part.class_name) for part in held]
    imports += ["from diffusers import GGUFQuantizationConfig"] if any(map(_is_gguf, held)) else []
    imports += [MAPPING] if configs else []
    return Loading(tuple(imports), (*(line for part in held for line in _single(part, place)), *pipe))


def mapping(configs: Configs) -> str:
    """The config of a pipeline; with `quant_backend` in place of the mapping it would refuse most quantizers."""
    lines = [indent(f'"{name}": {config.value},', "    ") for name, config in configs.items()]
    return "\n".join(["PipelineQuantizationConfig(quant_mapping={", *lines, "})"])


def _whole(model: Model, place: _Place, texts: list[Component], configs: Configs) -> Loading:
    """A checkpoint that holds text encoders, with what else is needed beside it."""
    common = together(texts)
    beside = [part for part in model.components if part not in texts and (not part.file or part.dtype != common)]
    lines = [
        line
        for part in beside
        for line in (_single(part, place) if part.file else _pretrained(part, place, configs.get(part.name)))
    ]
    arguments = {part.name: part.name for part in beside} | {"dtype": f"torch.{common}"}
    lines += _call(f"pipe = {model.class_name}.{FROM_FILE}", {"": json.dumps(texts[0].file)}, arguments)
    lines += [f"pipe.{part.name}.to(torch.{part.dtype})" for part in texts if part.dtype != common]
    return Loading(tuple(_import(part.library, part.class_name) for part in beside), tuple(lines))


def _single(part: Component, place: _Place) -> Iterator[str]:
    """A component of diffusers from the checkpoint; its config is named, as diffusers may guess another."""
    config = place.arguments("config_revision")
    arguments = {"config": config.pop(""), "subfolder": json.dumps(part.name), **config}
    if _is_gguf(part):
        arguments[QUANTIZATION] = f"GGUFQuantizationConfig(compute_dtype=torch.{part.dtype})"
    arguments["dtype"] = f"torch.{part.dtype}"
    return _call(f"{part.name} = {part.class_name}.{FROM_FILE}", {"": json.dumps(part.file)}, arguments)


def _pretrained(part: Component, place: _Place, config: Config | None) -> Iterator[str]:
    """A component that no checkpoint holds, from the pipeline's own place."""
    arguments = {"subfolder": json.dumps(part.name), "dtype": f"torch.{part.dtype}"}
    arguments |= {QUANTIZATION: config.value} if config else {}
    return _call(f"{part.name} = {part.class_name}.from_pretrained", place.arguments(), arguments)


def _call(function: str, *arguments: dict[str, str]) -> Iterator[str]:
    """A call on one line, or with an argument a line where that would be long."""
    values = [f"{name}={value}" if name else value for table in arguments for name, value in table.items()]
    line = f"{function}({', '.join(values)})"
    if len(line) <= _LONG and "\n" not in line:
        yield line
    else:
        yield from (f"{function}(", *(indent(f"{value},", "    ") for value in values), ")")


_LONG = 120
"""Characters of a line."""


def _is_gguf(part: Component) -> bool:
    return part.file.endswith(GGUF)


def _import(library: str, name: str) -> str:
    return f"from {library} import {name}"


def dtypes_as_code(components: Iterable[Component]) -> str:
    """One dtype, or a table where a component is loaded in another than the rest."""
    table = dtypes(components)
    named = [f'"{name}": torch.{dtype}' for name, dtype in table.items()]
    return f"{{{', '.join(named)}}}" if len(table) > 1 else f"torch.{table[DEFAULT]}"
