"""One door to every pipeline: a live one, a folder, a file, a bundled name, or an id on the Hub."""

import os
import re
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from memplan.catalogue.models import find, is_bundled
from memplan.errors import BadInput
from memplan.facts import Model
from memplan.probes.sources.index import read_index

if TYPE_CHECKING:
    from memplan.probes.fakes.twin import Twin

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")
"""owner/name, or owner/name@revision."""
BESIDE = re.compile(r"(?P<base>[^\0]+),(?P<component>[a-z]\w*)=(?P<file>[^\0]+\.gguf)")
"""MODEL,COMPONENT=FILE: any other source, and the GGUF file from which one of its components is loaded instead."""


def look(source: Any) -> Any:
    """`source`, as a Path where a text means a file or folder. It needs no torch.

    Raises BadInput for a name that is not bundled, for a folder that holds no saved pipeline, and for an absent file.
    """
    beside = _beside(source)
    if beside:
        look(beside["base"])
        if not Path(beside["file"]).expanduser().is_file():
            raise BadInput(f"there is no file {beside['file']} for {beside['component']}")
        return source
    place = Path(source).expanduser() if isinstance(source, str) and _is_path(source) else source
    if isinstance(place, Path) and not _is_checkpoint(place):
        read_index(place)
    elif isinstance(place, str) and not _is_hub_id(place):
        find(place)
    return place


def open_pipeline(source: Any, dtype: str | None = None, variant: str = "") -> "Twin":
    """The twin of `source`: a pipeline of diffusers, a module, modules by name, a path, a bundled name, or a Hub id.

    The last three may be followed by ",COMPONENT=FILE.gguf", from which that component is loaded instead.

    `dtype` ("bfloat16", "float16", "float32") and the `variant` of its files, as "fp16", say how a pipeline that is not
    in memory would be loaded. Raises BadInput, with what to do, for anything that cannot be opened.
    """
    place, beside = look(source), _beside(source)
    if beside:
        from memplan.probes.sources.gguf import with_gguf

        base = open_pipeline(beside["base"], dtype, variant)
        return with_gguf(base, beside["component"], Path(beside["file"]).expanduser())
    if isinstance(place, Path):
        return replace(_saved(place, dtype, variant), variant=variant)
    if isinstance(place, str):
        return replace(_named(place, dtype, variant), variant=variant)
    return _live(place, dtype or variant)


def identity(source: str | Path) -> Any:
    """What tells two states of a source apart: the files at a path, the commit of a Hub id.

    Raises BadInput for a Hub id of which nothing is known.
    """
    beside = _beside(source)
    if beside:
        return [identity(beside["base"]), identity(Path(beside["file"]))]
    path = Path(source).expanduser()
    if isinstance(source, Path) or _is_path(source):
        paths = [path, *path.glob("*"), *path.glob("*/*")]
        return sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths if p.is_file())
    return _commit(source) if _is_hub_id(source) else None


def is_hub_id(source: Any) -> bool:
    """Whether `source` is an id on the Hub, and no path, bundled name or anything beside another."""
    return isinstance(source, str) and not _beside(source) and not _is_path(source) and _is_hub_id(source)


def is_of(source: str | Path, model: Model) -> bool:
    """Whether `model` was read from `source`, and what it has from single files from the same."""
    beside = _beside(source)
    place = look(beside["base"] if beside else source)
    files = {Path(beside["file"]).expanduser()} if beside else set()
    if isinstance(place, Path) and _is_checkpoint(place):
        files, expected = {place}, model.source
    elif isinstance(place, Path):
        expected = f"folder {place}"
    else:
        expected = f"hub {place}" if _is_hub_id(place) else f"bundled {find(place).name}"
    held = {Path(part.file).resolve() for part in model.components if part.file}
    return held == {file.resolve() for file in files} and _absolute(model.source) == _absolute(expected)


def _absolute(source: str) -> str:
    kind, _, name = source.partition(" ")
    return f"{kind} {Path(name).resolve()}" if kind == "folder" else source


def _beside(source: Any) -> dict[str, str] | None:
    """The parts of "MODEL,COMPONENT=FILE.gguf", unless that is the name of a file."""
    found = BESIDE.fullmatch(source) if isinstance(source, str) and not _exists(Path(source).expanduser()) else None
    return found.groupdict() if found else None


def _is_path(source: str) -> bool:
    """Whether a text means a folder: a saved pipeline, anything that is there under no bundled name, or "./…"."""
    path = Path(source).expanduser()
    if _exists(path / "model_index.json"):
        return True
    return _written_as_path(source) or (_exists(path) and not is_bundled(source))


def _written_as_path(source: str, *, windows: bool = os.name == "nt") -> bool:
    """Whether a text can mean nothing but a path: "./…", "~/…", "/…"; on Windows also with backslashes, or "C:…"."""
    text = source.replace("\\", "/") if windows else source
    return (text.startswith((".", "~", "/")) and "/" in text) or (windows and PureWindowsPath(source).drive != "")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long to be a path at all
        return False


def _is_checkpoint(path: Path) -> bool:
    return path.is_file() and path.name != "model_index.json"


def _saved(path: Path, dtype: str | None, variant: str) -> "Twin":
    """What lies at a path: a checkpoint of one file, or a folder."""
    if _is_checkpoint(path):
        from memplan.probes.sources.single_file import file_twin

        return file_twin(path, dtype)
    from memplan.probes.sources.folder import folder_twin

    return folder_twin(path, dtype, variant=variant)


def _named(name: str, dtype: str | None, variant: str) -> "Twin":
    if _is_hub_id(name):
        from memplan.probes.sources.hub import hub_twin

        return hub_twin(name, dtype, variant)
    from memplan.probes.sources.bundled import bundled_twin

    if not variant:
        return bundled_twin(name, dtype)
    _check_variant(name, variant)
    twin = bundled_twin(name, dtype)
    said = f"whether {name} has files of the variant {variant} is not looked up: they are taken to hold what is loaded"
    return replace(twin, assumptions=(*twin.assumptions, said))


def _check_variant(name: str, variant: str) -> None:
    """Raises BadInput for a variant of a bundled model by its own name: memplan has its configs, and no files."""
    if HUB_ID.fullmatch(name) is None:
        raise BadInput(
            f"{name} is bundled without files, so that it has no variant {variant!r} to choose: leave it out, and say "
            f"the dtype if you mean that, or give the id on the Hub, {find(name).hub}"
        )


def _is_hub_id(name: str) -> bool:
    """Whether a text is an id on the Hub, and not that of a bundled model."""
    return HUB_ID.fullmatch(name) is not None and not is_bundled(name)


def _commit(hub_id: str) -> str:
    from memplan.probes.sources.hub import snapshot

    return snapshot(hub_id).commit


def _live(source: Any, asked: str | None) -> "Twin":
    from diffusers import DiffusionPipeline, ModularPipeline

    from memplan.probes.fakes.twin import live_twin
    from memplan.probes.sources.modules import Modules, as_pipeline

    pipe = as_pipeline(source)
    if not isinstance(pipe, DiffusionPipeline | ModularPipeline | Modules):
        choices = "a pipeline of diffusers, modules, a folder, a file, a Hub id or a bundled name"
        raise BadInput(f"cannot open a {type(source).__name__}: give {choices}.")
    if asked:
        raise BadInput(f"{asked!r} means nothing for a pipeline in memory, which is loaded already. Leave it out.")
    if isinstance(pipe, ModularPipeline):
        from memplan.probes.sources.modular import modular_twin

        return modular_twin(pipe)
    return live_twin(pipe)
