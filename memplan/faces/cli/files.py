"""Files that a verb writes beside its answer."""

import sys
from pathlib import Path

from memplan.errors import BadInput

KIB = 1024


def writable(file: Path) -> None:
    """Raises BadInput where `file` cannot be written, before the work for it is done."""
    folder = file.resolve().parent
    if not folder.is_dir():
        raise BadInput(f"{file} cannot be written: there is no folder {folder}")
    if file.is_dir():
        raise BadInput(f"{file} cannot be written: it is a folder; name a file in it")


def write(file: Path, content: bytes) -> None:
    """Writes `file` and says so. Raises BadInput where that fails."""
    try:
        file.write_bytes(content)
    except OSError as error:
        raise BadInput(f"{file} cannot be written: {error.strerror}") from error
    print(f"memplan: wrote {file}, {len(content) / KIB:,.0f} KiB", file=sys.stderr)
