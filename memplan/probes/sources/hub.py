"""A pipeline on the Hub becomes a twin: its configs and tokenizers are fetched, and the headers of its weights read.

Tokens, endpoints, offline mode and the cache are huggingface_hub's business. The weights stay where they are.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, constants, get_session, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from memplan.errors import BadInput
from memplan.probes.sources.headers import LENGTH, StoredTensor, header_length, tensors_in
from memplan.probes.sources.hub_words import INDEX, in_words
from memplan.probes.sources.side_by_side import each

if TYPE_CHECKING:
    from memplan.probes.fakes.twin import Twin

SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""How the names of configs, vocabularies and chat templates end."""
LARGEST_SMALL = 100_000_000
"""Bytes of the largest file of that kind that is fetched; the largest vocabularies have about 40 MB."""
FIRST_READ = 1 << 17
"""Bytes that are read of a weight file before the length of its header is known; most headers are shorter."""
PATIENCE = 12
"""How many of huggingface_hub's own time limits may pass without any file being finished."""


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository. `sizes` are the bytes of its files by name; none where the Hub was out of reach."""

    hub_id: str
    revision: str
    commit: str
    sizes: Mapping[str, int] = field(default_factory=dict)


def snapshot(source: str) -> Snapshot:
    """The commit that a Hub id means now; the last known one where the Hub cannot be reached.

    Raises BadInput, with what to do, for a repository that is not there or not to be seen, and where nothing is known.
    """
    hub_id, _, revision = source.partition("@")
    asked = Snapshot(hub_id, revision or constants.DEFAULT_REVISION, "")
    try:
        with in_words(hub_id, asked.revision):
            info = _each(lambda name: _info(name, asked.revision), [hub_id])[0]
            sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
            return replace(asked, commit=str(info.sha), sizes=sizes)
    except BadInput:
        with in_words(hub_id, asked.revision):
            kept = try_to_load_from_cache(hub_id, INDEX, revision=asked.revision)
        if not isinstance(kept, str):
            raise
        return replace(asked, commit=Path(kept).parent.name)


def _info(hub_id: str, revision: str) -> Any:
    seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
    return HfApi().model_info(hub_id, revision=revision, files_metadata=True, timeout=seconds)


def hub_twin(source: str, dtype: str | None = None, variant: str = "") -> "Twin":
    """The twin of a pipeline on the Hub, as from_pretrained(torch_dtype=dtype) would load it.

    Without `dtype` each component has the dtype that most of its weights are stored in. Raises BadInput, with what to
    do, for what is not there, not to be seen, out of reach, or not whole.
    """
    from memplan.probes.sources.folder import folder_twin

    found = snapshot(source)
    folder = _fetched(found)
    twin = folder_twin(folder, dtype, lambda part, own: _stored(found, folder, part.name, own), variant)
    return replace(twin, name=source, source=f"hub {source}")


# ---- small files ----------------------------------------------------------------------------------------------------
def _fetched(found: Snapshot) -> Path:
    """The folder of the commit in huggingface_hub's cache, with every small file of the pipeline in it."""
    with in_words(found.hub_id, found.revision):
        if found.sizes:
            # By its revision, so that huggingface_hub remembers which commit that is when it is offline.
            _each(lambda name: hf_hub_download(found.hub_id, name, revision=found.revision), [INDEX])
        names = _small(found)
        paths = _each(lambda name: hf_hub_download(found.hub_id, name, revision=found.commit), names)
    return Path(paths[0]).parent


def _small(found: Snapshot) -> list[str]:
    """The index, and the small files in the folders of components. Raises BadInput for one that is not small."""
    inner = [name for name in found.sizes if name.count("/") == 1 and name.endswith(SMALL)]
    names = [INDEX, *(name for name in inner if not name.endswith(".index.json"))]
    for name in names:
        if found.sizes.get(name, 0) > LARGEST_SMALL:
            raise BadInput(
                f"{name} of {found.hub_id} has {found.sizes[name]} bytes, which no config or vocabulary has."
            )
    return names


def _each(work: Callable[[str], Any], names: list[str]) -> list[Any]:
    return each(work, names, PATIENCE * constants.HF_HUB_DOWNLOAD_TIMEOUT)


# ---- headers of weights ---------------------------------------------------------------------------------------------
def _stored(found: Snapshot, folder: Path, key: str, variant: str) -> Iterable[StoredTensor]:
    """The tensors of a component: from the files in the cache, else from the headers on the Hub."""
    from memplan.probes.sources.folder import WEIGHTS, counted, on_disk

    names = [name for name in found.sizes if name.endswith(WEIGHTS) and Path(name).parent == Path(key)]
    wanted = [path.as_posix() for path in counted((Path(name) for name in names), variant)]
    if all((folder / name).exists() for name in wanted):
        tensors = list(on_disk(folder / key, variant))
        if not tensors and not found.sizes:
            raise BadInput(f"what dtype {key} is stored in is not known offline: give one, e.g. --dtype bfloat16.")
        return tensors
    with in_words(found.hub_id, found.revision):
        tables = _each(lambda name: _remote(found, name), wanted)
    return [tensor for table in tables for tensor in table.values()]


def _remote(found: Snapshot, name: str) -> dict[str, StoredTensor]:
    """The tensors of a weight file on the Hub."""
    url = hf_hub_url(found.hub_id, name, revision=found.commit)
    start = _read(url, 0, min(FIRST_READ, found.sizes[name]))
    length = header_length(url, start, found.sizes[name])
    whole = start[: LENGTH + length]
    whole += _read(url, len(whole), LENGTH + length - len(whole))
    return tensors_in(url, whole[LENGTH:], found.sizes[name] - LENGTH - length)


def _read(url: str, start: int, count: int) -> bytes:
    """`count` bytes of a file from `start` on. A server that sends more is not listened to."""
    if count <= 0:
        return b""
    headers = {**build_hf_headers(), "Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
    received = b""
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        if start and response.status_code != 206:  # noqa: PLR2004
            raise OSError("the server ignores which part of a file is asked for")
        for chunk in response.iter_bytes(FIRST_READ):
            received += chunk
            if len(received) >= count:
                return received[:count]
    raise OSError(f"{len(received)} bytes came instead of {count}")
