"""A folder of save_pretrained becomes a twin: its configs, and the headers of its weights if they are there."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.errors import BadInput, Unsupported
from memplan.probe.assembly import DTYPES, assemble, dtype_named
from memplan.probe.fake import fresh_mode
from memplan.probe.headers import is_pointer, stored_tensors
from memplan.probe.skeleton import class_of, fake_module, is_module
from memplan.probe.twin import Twin


def folder_twin(folder: Path, dtype: str | None = None) -> Twin:
    """The twin of the pipeline saved in `folder`; the weights may be absent.

    Without `dtype` each component has the dtype that most of its weights are stored in, or bfloat16. Raises BadInput
    that names the file and what is wrong with it.
    """
    index = _index(folder)
    pipeline = _pipeline_class(folder, index)
    mode = fresh_mode()
    chosen = dtype_named(dtype) if dtype else None
    parts = {key: _part(folder, key, value, chosen, mode) for key, value in index.items() if not key.startswith("_")}
    return assemble(pipeline, parts, mode, _name(folder), f"folder {folder}")


def _name(folder: Path) -> str:
    """The folder's name; for one in the Hub's cache, the id that it was downloaded by."""
    whole = folder.resolve()
    if whole.parent.name == "snapshots":
        return whole.parent.parent.name.removeprefix("models--").replace("--", "/")
    return whole.name


# ---- the index ------------------------------------------------------------------------------------------------------
def _index(folder: Path) -> dict[str, Any]:
    """model_index.json of the folder."""
    if not folder.exists():
        raise BadInput(f"there is no folder {folder}. Check the path, or name a bundled model.")
    if not folder.is_dir():
        raise BadInput(f"{folder} is a file; give the folder of a pipeline, the one with model_index.json in it.")
    if not (folder / "model_index.json").exists():
        raise BadInput(
            f"{folder} has no model_index.json, so it is not a saved pipeline. Give the folder that "
            f"pipe.save_pretrained() wrote or that was downloaded whole."
        )
    return _json(folder / "model_index.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{path} is missing; only the weights may be. Download or save it again.") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not valid JSON: {error}. Download or save it again.") from error
    if not isinstance(data, dict):
        raise BadInput(f"{path} holds a {type(data).__name__} instead of a table. Download or save it again.")
    return data


def _pipeline_class(folder: Path, index: Mapping[str, Any]) -> Any:
    name = index.get("_class_name")
    if isinstance(name, list):
        raise Unsupported(f"{folder} is a pipeline of its own code ({name[-1]}). Load it yourself and give the pipe.")
    if not isinstance(name, str):
        raise BadInput(f"{folder / 'model_index.json'} does not say which pipeline it is: _class_name is {name!r}.")
    return class_of("diffusers", name)


# ---- the components -------------------------------------------------------------------------------------------------
def _part(folder: Path, key: str, value: Any, dtype: torch.dtype | None, mode: FakeTensorMode) -> Any:
    """A component, None for one that is switched off, or a plain argument as it stands in the index."""
    match value:
        case [None, _]:
            return None
        case [str(library), str(class_name)]:
            return _component(folder, key, class_of(library, class_name), dtype, mode)
        case _:
            return value


def _component(folder: Path, key: str, cls: Any, dtype: torch.dtype | None, mode: FakeTensorMode) -> Any:
    """A module with fake weights, or the real thing."""
    path = folder / key
    if not path.is_dir():
        raise BadInput(f"{folder} has no folder {key}, which its model_index.json names. Download or save it whole.")
    return _module(cls, path, dtype, mode) if is_module(cls) else _real(cls, path)


def _module(cls: Any, path: Path, dtype: torch.dtype | None, mode: FakeTensorMode) -> torch.nn.Module:
    config = _json(path / "config.json")
    try:
        return fake_module(cls, config, dtype or _stored_dtype(path), mode)
    except BadInput as error:
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:
        raise BadInput(f"{path / 'config.json'} does not make a {cls.__name__}: {error}.") from error


def _real(cls: Any, path: Path) -> Any:
    """A scheduler, tokenizer or processor, loaded as its library does."""
    from diffusers import DiffusionPipeline

    if isinstance(cls, type) and issubclass(cls, DiffusionPipeline):
        raise Unsupported(f"{path} is a pipeline within a pipeline. Plan each of them by itself.")
    try:
        return cls.from_pretrained(path, local_files_only=True)
    except Exception as error:
        raise BadInput(f"{path} does not make a {cls.__name__}: {error}") from error


def _stored_dtype(path: Path) -> torch.dtype:
    """The dtype of most elements in the component's weight files; bfloat16 when there are none to tell."""
    elements: Counter[str] = Counter()
    for file in _weight_files(path):
        for tensor in stored_tensors(file).values():
            elements[tensor.dtype] += tensor.numel
    loadable = Counter({name: count for name, count in elements.items() if name in DTYPES})
    return DTYPES[loadable.most_common(1)[0][0]] if loadable else torch.bfloat16


def _weight_files(path: Path) -> list[Path]:
    """The safetensors files that count: a variant (`model.fp16.safetensors`) only where there is nothing else."""
    files = [file for file in sorted(path.glob("*.safetensors")) if not is_pointer(file)]
    return [file for file in files if "." not in file.stem] or files
