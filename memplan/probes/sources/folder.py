"""A folder of save_pretrained becomes a twin: its configs, and the headers of its weights if they are there."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.errors import BadInput, Unsupported
from memplan.probes.fakes.fake import fresh_mode
from memplan.probes.fakes.twin import Twin
from memplan.probes.sources.assembly import DTYPES, assemble, dtype_named
from memplan.probes.sources.bounds import bounded
from memplan.probes.sources.headers import StoredTensor, is_pointer, stored_tensors
from memplan.probes.sources.index import read_index
from memplan.probes.sources.jsons import config_table
from memplan.probes.sources.skeleton import class_of, fake_module, is_module

SCHEDULER = "scheduler_config.json"
WEIGHTS = ".safetensors"
Stored = Callable[[Path, str], Iterable[StoredTensor]]
"""The tensors stored for the component in that folder, of a variant or ""; none where there are no weights."""


@dataclass(frozen=True)
class _Reading:
    """How components are read: in `dtype`, or in the one that `stored` tells; `untold` are those that it doesn't.

    `cast` are those that are stored in another. `variant` names the files that count.
    """

    mode: FakeTensorMode
    dtype: torch.dtype | None
    stored: Stored
    untold: list[str] = field(default_factory=list)
    cast: set[str] = field(default_factory=set)
    variant: str = ""


def folder_twin(folder: Path, dtype: str | None = None, stored: Stored | None = None, variant: str = "") -> Twin:
    """The twin of the pipeline saved in `folder`; the weights may be absent, or elsewhere, where `stored` finds them.

    Without `dtype` each component has the dtype that most of its weights are stored in; where that is not known, as
    of weights in .bin files, bfloat16 is assumed. Where a component has no files of the `variant`, those without count.
    Raises BadInput that names the file and what is wrong with it.
    """
    index = read_index(folder)
    pipeline = _pipeline_class(folder, index)
    how = _Reading(fresh_mode(), dtype_named(dtype) if dtype else None, stored or on_disk, variant=variant)
    parts = {key: _part(folder, key, value, how) for key, value in index.items() if not key.startswith("_")}
    twin = assemble(pipeline, parts, how.mode, _name(folder), f"folder {folder}")
    untold = f"no safetensors file tells in which dtype {', '.join(how.untold)} is loaded: bfloat16 is assumed"
    return replace(twin, assumptions=(untold,) if how.untold else (), cast=frozenset(how.cast))


def _name(folder: Path) -> str:
    """The folder's name; for one in the Hub's cache, the id that it was downloaded by."""
    whole = folder.resolve()
    if whole.parent.name == "snapshots":
        return whole.parent.parent.name.removeprefix("models--").replace("--", "/")
    return whole.name


# ---- the pipeline ---------------------------------------------------------------------------------------------------
def _pipeline_class(folder: Path, index: Mapping[str, Any]) -> Any:
    name = index.get("_class_name")
    if isinstance(name, list):
        raise Unsupported(f"{folder} is a pipeline of its own code ({name[-1]}). Load it yourself and give the pipe.")
    if not isinstance(name, str):
        raise BadInput(f"{folder / 'model_index.json'} does not say which pipeline it is: _class_name is {name!r}.")
    return class_of("diffusers", name)


# ---- the components -------------------------------------------------------------------------------------------------
def _part(folder: Path, key: str, value: Any, how: _Reading) -> Any:
    """A component, None for one that is switched off, or a plain argument as it stands in the index."""
    match value:
        case [None, _]:
            return None
        case [str(library), str(class_name)]:
            return _component(folder, key, class_of(library, class_name), how)
        case _:
            return value


def _component(folder: Path, key: str, cls: Any, how: _Reading) -> Any:
    """A module with fake weights, or the real thing."""
    path = folder / key
    if not path.is_dir():
        raise BadInput(f"{folder} has no folder {key}, which its model_index.json names. Download or save it whole.")
    return _module(cls, path, how) if is_module(cls) else _real(cls, path)


def _module(cls: Any, path: Path, how: _Reading) -> torch.nn.Module:
    config = config_table(path / "config.json")
    try:
        return fake_module(cls, config, _dtype(path, how), how.mode)
    except BadInput as error:
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:
        raise BadInput(f"{path / 'config.json'} does not make a {cls.__name__}: {error}.") from error


def _real(cls: Any, path: Path) -> Any:
    """A scheduler, tokenizer or processor, loaded as its library does."""
    from diffusers import DiffusionPipeline

    if isinstance(cls, type) and issubclass(cls, DiffusionPipeline):
        raise Unsupported(f"{path} is a pipeline within a pipeline. Plan each of them by itself.")
    if (path / SCHEDULER).exists():
        config_table(path / SCHEDULER)
    try:
        with bounded():
            return cls.from_pretrained(path, local_files_only=True)
    except Exception as error:
        raise BadInput(f"{path} does not make a {cls.__name__}: {error}") from error


# ---- the dtype ------------------------------------------------------------------------------------------------------
def _dtype(path: Path, how: _Reading) -> torch.dtype:
    """The dtype asked for, or that of most of the elements stored; bfloat16, and so noted, when nothing tells."""
    elements: Counter[str] = Counter()
    if how.dtype and how.stored is not on_disk:  # the Hub is asked only for what is not known
        return how.dtype
    for tensor in how.stored(path, how.variant):
        elements[tensor.dtype] += tensor.numel
    loadable = Counter({name: count for name, count in elements.items() if name in DTYPES})
    stored = DTYPES[loadable.most_common(1)[0][0]] if loadable else None
    if how.dtype and stored not in (None, how.dtype):
        how.cast.add(path.name)
    if stored is None and how.dtype is None:
        how.untold.append(path.name)
    return how.dtype or stored or torch.bfloat16


def on_disk(path: Path, variant: str = "") -> Iterable[StoredTensor]:
    """The tensors in the weight files of the component in folder `path`."""
    files = [file for file in sorted(path.glob(f"*{WEIGHTS}")) if not is_pointer(file)]
    for file in counted(files, variant):
        yield from stored_tensors(file).values()


def counted(files: Iterable[Path], variant: str = "") -> list[Path]:
    """The safetensors files that are loaded: those of the variant, as `model.fp16.safetensors`, else those of none.

    Where there are neither, all of them.
    """
    everything = list(files)
    own = [file for file in everything if variant and re.search(rf"\.{re.escape(variant)}(-\d+-of-\d+)?$", file.stem)]
    return own or [file for file in everything if "." not in file.stem] or everything
