"""One door to every pipeline: a live one, a folder of save_pretrained, or a bundled name."""

import os
from pathlib import Path
from typing import Any

from memplan.catalogue.models import is_bundled, nearest
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
        return _folder(Path(source).expanduser(), dtype) if _is_path(source) else _bundled(source, dtype)
    return _live(source, dtype)


def _is_path(source: str) -> bool:
    """Whether a text means a folder: a saved pipeline, anything that is there under no bundled name, or "./…"."""
    path = Path(source).expanduser()
    if _exists(path / "model_index.json"):
        return True
    written_as_path = source.startswith((".", "~", os.sep)) and os.sep in source
    return written_as_path or (_exists(path) and not is_bundled(source))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long to be a path at all
        return False


def _folder(path: Path, dtype: str | None) -> Twin:
    from memplan.probe.folder import folder_twin

    return folder_twin(path, dtype)


def _bundled(name: str, dtype: str | None) -> Twin:
    from memplan.probe.bundled import bundled_twin

    if "/" in name and not is_bundled(name):
        raise BadInput(
            f"{name!r} reads like a Hub id, and the Hub is not read yet: download it and give the folder, or name a "
            f"bundled model. {nearest(name)}"
        )
    return bundled_twin(name, dtype)


def _live(source: Any, dtype: str | None) -> Twin:
    from diffusers import DiffusionPipeline

    from memplan.probe.twin import live_twin

    if not isinstance(source, DiffusionPipeline):
        raise BadInput(f"cannot open a {type(source).__name__}: give a DiffusionPipeline, a folder or a bundled name.")
    if dtype is not None:
        raise BadInput(
            f"dtype={dtype!r} means nothing for a pipeline in memory, which is loaded already. Leave it out."
        )
    return live_twin(source)
