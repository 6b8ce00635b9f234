"""What a container lets its processes use: the lowest memory limit of any control group above this process."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_UNLIMITED = 2**60
"""Version 1 writes "no limit" as the largest page-aligned 64-bit number; no machine has an exbibyte."""


@dataclass(frozen=True)
class MemoryLimit:
    """Bytes: `limit` is the lowest limit, `available` the least that any limited group has left."""

    limit: int
    available: int


@dataclass(frozen=True)
class _Version:
    """Where one version of control groups keeps its figures."""

    mounts: tuple[str, ...]
    controller: str
    limit: str
    usage: str
    reclaimable: str


_VERSIONS = (
    _Version(
        mounts=("sys/fs/cgroup", "sys/fs/cgroup/unified"),
        controller="",
        limit="memory.max",
        usage="memory.current",
        reclaimable="inactive_file",
    ),
    _Version(
        mounts=("sys/fs/cgroup/memory",),
        controller="memory",
        limit="memory.limit_in_bytes",
        usage="memory.usage_in_bytes",
        reclaimable="total_inactive_file",
    ),
)


def memory_limit(root: Path = Path("/")) -> MemoryLimit | None:
    """The limit on this process by control groups of either version, or None; `root` holds `proc` and `sys`.

    Every ancestor counts, since a group can use no more than the groups around it. Page cache that the kernel would
    drop first (inactive files) counts as available. Paths that a container does not show are passed over: there the
    mount point itself is the container's group.
    """
    found = [
        limit
        for version in _VERSIONS
        for mount in version.mounts
        for folder in _ancestors(_path(root, version.controller))
        if (limit := _limit(root / mount / folder, version))
    ]
    if not found:
        return None
    return MemoryLimit(min(f.limit for f in found), min(f.available for f in found))


def _path(root: Path, controller: str) -> str:
    """This process's group for `controller` (version 2: ""), from lines like "4:memory:/docker/1f2e" and "0::/user"."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            return path
    return ""


def _ancestors(path: str) -> Iterator[str]:
    """The folders from the group up to the mount point, ""; ".." leads out of the container's view and is left out."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for depth in range(len(parts), -1, -1):
        yield "/".join(parts[:depth])


def _limit(folder: Path, version: _Version) -> MemoryLimit | None:
    limit = _number(_text(folder / version.limit))
    if limit is None or limit >= _UNLIMITED:
        return None
    usage = _number(_text(folder / version.usage)) or 0
    stat = dict(line.split(maxsplit=1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
    held = max(usage - (_number(stat.get(version.reclaimable, "")) or 0), 0)
    return MemoryLimit(limit, max(limit - held, 0))


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    """The number in a file, or None for "max", "-1" and a missing file."""
    return int(text) if text.strip().isdigit() else None
