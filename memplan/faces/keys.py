"""The name under which measured facts are cached: all that they depend on."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from os.path import expanduser, isfile
from pathlib import Path
from typing import Any

from memplan.faces import store
from memplan.facts import Differentiable, Training
from memplan.probes.sources import identity

KERNELS = "cuda"
"""The kind of device whose kernels a dry run assumes."""
OLDER, NEWER = (7, 0), (8, 0)
"""Compute capabilities from which PyTorch chooses other attention kernels; a dry run is made for one of them."""
DECIDING = (
    "allocator.py",
    "faces/measuring.py",
    "faces/sampling/asked.py",
    "facts/*.py",
    "probes/**/*.py",
    "catalogue/*.py",
    "catalogue/**/*.json",
)
"""The files of memplan on which facts depend, beside those that switch modules for strategies, `live/` of theirs."""
LIBRARIES = ("memplan", "torch", "diffusers", "transformers", "accelerate")


def key(
    source: Any,
    call: Mapping[str, Any],
    dtype: str | None,
    capability: tuple[int, int] = NEWER,
    ways: Sequence[str] = (),
    *,
    variant: str = "",
    train: Training | None = None,
    differentiable: Differentiable | None = None,
) -> str | None:
    """The cache's name for these facts, or None where they can't be kept."""
    if not isinstance(source, str | Path) or not all(_plain(value) for value in call.values()):
        return None
    content = identity(source)
    versions = {library: version(library) for library in LIBRARIES}
    place = {"source": str(source), "content": content, "files": _files(call)}
    kernels = {"kernels": KERNELS, "capability": capability, "ways": list(ways)}
    step = {"train": vars(train.traced) if train else None, "gradients": differentiable is not None}
    return store.key(
        {
            **place,
            "call": dict(call),
            "dtype": dtype,
            "variant": variant,
            **kernels,
            **step,
            "program": _program(),
            **versions,
        }
    )


def _program() -> list[tuple[str, int, int]]:
    """What tells two states of memplan's own measuring apart: in a checkout the version stays the same."""
    here, techniques = Path(__file__).parent.parent, find_spec("memplan.strategies")
    files = [(path, here) for place in DECIDING for path in here.glob(place)]
    for place in (techniques.submodule_search_locations or ()) if techniques else ():
        files += [(path, Path(place)) for path in Path(place, "live").glob("*.py")]
    return sorted((str(p.relative_to(root)), p.stat().st_size, p.stat().st_mtime_ns) for p, root in files)


def _files(call: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Path, bytes and time of change of the arguments that name a file, as a picture may be replaced by another."""
    texts = (value for value in call.values() if isinstance(value, str))
    paths = (Path(path).resolve() for path in map(expanduser, texts) if isfile(path))  # noqa: PTH113  (Path raises)
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | None)
