"""What a safetensors file holds, from its header alone: no tensor is read."""

import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from memplan.errors import BadInput

_DTYPES = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1), "C64": ("complex64", 8),
    "I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1),
    "U64": ("uint64", 8), "U32": ("uint32", 4), "U16": ("uint16", 2), "U8": ("uint8", 1), "BOOL": ("bool", 1),
}  # fmt: skip
"""torch's name and bytes of an element, by safetensors' name of a dtype."""

_LENGTH = 8
_LARGEST_HEADER = 100_000_000  # the format's own limit, in bytes


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file: torch's name of its dtype, its shape, and the bytes it takes there."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def numel(self) -> int:
        """Elements."""
        return prod(self.shape)


def tensor_dtypes(path: Path) -> dict[str, str]:
    """torch's name of the dtype of each tensor in the file. Raises BadInput for a file that is not whole."""
    return {name: tensor.dtype for name, tensor in stored_tensors(path).items()}


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name. Raises BadInput for a file that is not whole or not what it says."""
    header, room = _header(path)
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            tensors[name] = _tensor(path, name, entry, room)
    return tensors


def is_pointer(path: Path) -> bool:
    """Whether the file only stands for one that Git LFS has not fetched."""
    with path.open("rb") as file:
        return file.read(64).startswith(b"version https://git-lfs")


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header and the number of bytes that follow it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(_LENGTH), "little")
        if size < _LENGTH or length > min(size - _LENGTH, _LARGEST_HEADER):
            raise _damaged(path, f"it has {size} bytes, and its first 8 promise a header of {length}")
        text = file.read(length)
    try:
        header = json.loads(text)
    except ValueError as error:
        raise _damaged(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _damaged(path, f"its header is a {type(header).__name__}, not a table of tensors")
    return header, size - _LENGTH - length


def _tensor(path: Path, name: str, entry: Any, room: int) -> StoredTensor:
    """One entry of the header, held against the bytes that the file has."""
    try:
        code, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        dtype, item = _DTYPES.get(code, (code.lower(), None))
        sound = all(isinstance(n, int) and n >= 0 for n in (*shape, start, end)) and start <= end
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise _damaged(path, f"its entry for {name} lacks dtype, shape or data_offsets") from error
    if not sound:
        raise _damaged(path, f"its entry for {name} has shape {shape} and bytes {start} to {end}")
    if end > room:
        raise _damaged(path, f"{name} ends at byte {end} of {room}: the file is cut short")
    if item is not None and end - start != prod(shape) * item:
        raise _damaged(path, f"{name} is {code} {shape} but takes {end - start} bytes instead of {prod(shape) * item}")
    return StoredTensor(dtype, shape, end - start)


def _damaged(path: Path, what: str) -> BadInput:
    return BadInput(f"{path} is not a whole safetensors file: {what}. Download it again.")
