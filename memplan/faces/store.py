"""Keeps facts in the user's cache directory, in a compact versioned file per model and call."""

import gzip
import hashlib
import json
import os
import warnings
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from platformdirs import user_cache_path

from memplan.facts import Model, Trace

VARIABLE = "MEMPLAN_CACHE"
"""Environment variable that names another cache directory."""


def directory() -> Path:
    """Where facts are kept: $MEMPLAN_CACHE, or memplan's folder in the user's cache directory."""
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else user_cache_path("memplan")


def key(parts: Mapping[str, Any]) -> str:
    """The name of the file for facts that depend on `parts`: model, call, device and versions."""
    text = json.dumps([schema(Model), schema(Trace), parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def schema(kind: Any) -> Any:
    """The names of the fields of a dataclass and of those inside it: the version of the file's format."""
    if is_dataclass(kind):
        return [[f.name, schema(hint)] for f, hint in zip(fields(kind), _hints(kind), strict=True)]
    return [schema(inner) for inner in get_args(kind)] or str(kind)


def load(name: str) -> tuple[Model, Trace] | None:
    """The facts kept under `name`, or None. A file that cannot be read is reported and made anew."""
    path = directory() / f"{name}.json.gz"
    try:
        data = json.loads(gzip.decompress(path.read_bytes()))
        return decode(Model, data["model"]), decode(Trace, data["trace"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zlib.error) as error:
        warnings.warn(f"the cache file {path} cannot be read ({error}); it is made anew", stacklevel=2)
        return None


def save(name: str, model: Model, trace: Trace) -> None:
    """Keep facts under `name`. Without permission to write there is no cache, and a warning."""
    data = json.dumps({"model": encode(model), "trace": encode(trace)}, separators=(",", ":"))
    write(directory() / f"{name}.json.gz", gzip.compress(data.encode(), compresslevel=3, mtime=0))


def write(path: Path, data: bytes) -> bool:
    """Put `data` in the place of the file all at once; where that cannot be there is a warning, and False."""
    scratch = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(data)
        scratch.replace(path)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink()
        warnings.warn(f"memplan goes on without its cache: {error}", stacklevel=3)
        return False
    return True


# ---- dataclasses as lists -------------------------------------------------------------------------------------------
def encode(value: Any) -> Any:
    """A fact as JSON: a dataclass becomes the list of its fields."""
    if is_dataclass(value):
        return [encode(getattr(value, f.name)) for f in fields(value)]
    return [encode(v) for v in value] if isinstance(value, tuple) else value


def decode(kind: Any, data: Any) -> Any:
    """The fact of type `kind` that `encode` wrote. Raises ValueError or TypeError for anything else."""
    if is_dataclass(kind):
        hints = _hints(kind)
        if not isinstance(data, list) or len(data) != len(hints):
            raise ValueError(f"{kind!r} is damaged")
        return kind(*(decode(hint, item) for hint, item in zip(hints, data, strict=True)))  # type: ignore[operator]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return _tuple(arguments, data)
    if origin in (Union, UnionType):
        return None if data is None else decode(next(a for a in arguments if a is not type(None)), data)
    if type(data) is not kind:
        raise ValueError(f"{data!r} is not {kind!r}")
    return data


def _tuple(kinds: tuple[Any, ...], data: Any) -> tuple[Any, ...]:
    """A tuple of one kind, or of one kind for each place. Plain values are checked all at once: there are many."""
    if type(data) is not list:
        raise ValueError(f"{data!r} is not a list")
    if kinds[-1] is not Ellipsis:
        return tuple(decode(k, d) for k, d in zip(kinds, data, strict=True))
    if kinds[0] not in (int, str):
        return tuple(decode(kinds[0], d) for d in data)
    if not set(map(type, data)) <= {kinds[0]}:
        raise ValueError(f"{data!r} is not all {kinds[0]!r}")
    return tuple(data)


_CACHE: dict[Any, list[Any]] = {}


def _hints(kind: Any) -> list[Any]:
    if kind not in _CACHE:
        hints = get_type_hints(kind)
        _CACHE[kind] = [hints[f.name] for f in fields(kind)]
    return _CACHE[kind]
