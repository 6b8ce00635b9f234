"""One door to every pipeline: a live one, a folder of save_pretrained, or a bundled name."""

import os
from pathlib import Path
from typing import Any

from memplan.catalogue.models import find, is_bundled
from memplan.errors import BadInput
from memplan.probe.twin import Twin


def open_pipeline(source: Any, dtype: str | None = None) -> Twin:
    """The twin of `source`: a DiffusionPipeline, a path, or the name of a bundled model.

    `dtype` ("bfloat16", "float16", "float32") says how a folder or a bundled model would be loaded. Raises BadInput,
    with what to do, for anything that cannot be opened.
    """
    if isinstance(source, Path):
        return _folder(source, dtype)
    if isinstance(source, str):
        return _named(source, dtype)
    return _live(source, dtype)


def _named(source: str, dtype: str | None) -> Twin:
    if _looks_like_path(source):
        return _folder(Path(source).expanduser(), dtype)
    if "/" in source and not is_bundled(source):
        raise BadInput(
            f"{source!r} looks like a Hub id; memplan does not read the Hub yet. Download it and give the folder, or "
            f"name a bundled model. {_unknown(source)}"
        )
    from memplan.probe.bundled import bundled_twin

    return bundled_twin(source, dtype)


def _looks_like_path(source: str) -> bool:
    """An existing folder, or a text that can only be meant as a path."""
    return source.startswith((".", "~", os.sep)) and os.sep in source or (not is_bundled(source) and Path(source).exists())


def _unknown(source: str) -> str:
    try:
        find(source)
    except BadInput as error:
        return str(error)
    return ""


def _folder(path: Path, dtype: str | None) -> Twin:
    from memplan.probe.folder import folder_twin

    return folder_twin(path, dtype)


def _live(source: Any, dtype: str | None) -> Twin:
    from diffusers import DiffusionPipeline

    from memplan.probe.twin import live_twin

    if not isinstance(source, DiffusionPipeline):
        raise BadInput(f"cannot open a {type(source).__name__}: give a DiffusionPipeline, a folder or a bundled name.")
    if dtype is not None:
        raise BadInput(f"dtype={dtype!r} has no meaning for a pipeline in memory: it is loaded already. Leave it out.")
    return live_twin(source)
