"""The host at hand: memory, swap, disk, and what limits them."""

import mmap
import os
import platform
import shutil
from contextlib import suppress
from pathlib import Path

import psutil

from memplan.facts import MIB, Host
from memplan.probes.machine.cgroup import memory_limit

WSL_PINNED = 500 * MIB
"""What counts as pinnable under WSL. NVIDIA says that it is limited, not to how much ("CUDA on WSL User Guide", known
limitations); users met the wall between 500 MiB (microsoft/WSL issue 14078) and several GiB, the least of which counts.
"""


def probe_host(kind: str = "", root: Path = Path("/")) -> Host:
    """The memory of this host, less where a control group allows less, and the free disk of the user's cache folder.

    What this process holds counts as available, as a live pipeline's weights are in a plan's bill; the share of the
    libraries among it is some hundred MiB, which no bill has. `kind` is
    that of the GPU beside it, whose driver decides what can be pinned; `root` holds `proc` and `sys`. Under WSL the
    memory is that of its virtual machine.
    """
    memory, system = psutil.virtual_memory(), _system()
    limit = memory_limit(root)
    others_leave = min(memory.available, limit.available) if limit else memory.available
    return Host(
        total=memory.total,
        available=min(others_leave + _own(), limit.limit if limit else memory.total),
        limit=limit.limit if limit else None,
        disk_free=_disk_free(),
        source="cgroup" if limit and limit.available < memory.available else "psutil",
        swap=_swap(),
        pinnable=_pinnable(system, kind, memory.total, root),
        system=system,
    )


def cpu_name(root: Path = Path("/")) -> str:
    """The processor and how many of its cores this process may use, e.g. "AMD EPYC, 2 cores"."""
    name = platform.processor() or platform.machine()
    with suppress(OSError, UnicodeDecodeError):
        lines = (root / "proc/cpuinfo").read_text("utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count()
    return f"{name}, {cores} cores"


def _own() -> int:
    """Bytes that only this process holds; those that map files are available to others as it is."""
    held = psutil.Process().memory_info()
    return held.rss - held.shared if hasattr(held, "shared") else held.rss


def _system() -> str:
    """ "Linux", "WSL", "Windows" or "Darwin"; the kernels that Microsoft builds for WSL carry its name."""
    system = platform.system()
    return "WSL" if system == "Linux" and "microsoft" in platform.release().lower() else system


def _pinnable(system: str, kind: str, total: int, root: Path) -> int | None:
    """Bytes that a device may have pinned, or None where only the memory itself limits them.

    Windows counts pinned memory as shared GPU memory, which is at most half of the host's ("Calculating Graphics
    Memory", Microsoft). AMD's driver for Linux takes it through TTM, whose limit is a number of pages. NVIDIA's locks
    pages by itself, so that the limit on locked memory of a process (RLIMIT_MEMLOCK) does not hold it.
    """
    if system == "WSL":
        return WSL_PINNED
    if system == "Windows":
        return total // 2
    return _ttm_limit(root) if kind == "rocm" else None


def _ttm_limit(root: Path) -> int | None:
    """The limit of the kernel's own TTM or of AMD's build of it, whichever is loaded."""
    files = (root / "sys/module" / module / "parameters/pages_limit" for module in ("amdttm", "ttm"))
    return next((int(file.read_text("ascii")) * mmap.PAGESIZE for file in files if file.exists()), None)


def _swap() -> int:
    """Bytes of swap space; 0 where the system does not tell."""
    try:
        return psutil.swap_memory().total
    except (OSError, RuntimeError):
        return 0


def _disk_free() -> int | None:
    """Free bytes where downloads would go, or where we stand; None where the system does not tell."""
    cache = Path(os.environ.get("HF_HOME") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    there = next((folder for folder in (cache, *cache.parents) if folder.exists()), Path())
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return None
