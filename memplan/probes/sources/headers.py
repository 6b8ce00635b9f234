"""What a safetensors file holds, from its header alone: no tensor is read, and nothing that it claims is believed.

The format: 8 bytes with the length of the header, the header as JSON, then the bytes of the tensors one after the
other, without gaps (https://huggingface.co/docs/safetensors/index#format).
"""

import json
import os
from collections.abc import Iterable
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

LENGTH = 8
"""Bytes of the header's length at the start of a file."""
LARGEST_HEADER = 25_000_000
"""Bytes of the longest header that is read. huggingface_hub has the same limit; the largest models need a tenth."""
_MOST_DIMENSIONS = 64
_SHOWN = 80


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


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name. Raises BadInput for a file that is not whole or not what it says."""
    if not path.is_file():
        raise BadInput(f"{path} should hold weights, but it is no file. Download or save it again.")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = header_length(path, file.read(LENGTH), size)
            return tensors_in(path, file.read(length), size - LENGTH - length)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}. Check who may read it.") from error


def header_length(where: Path | str, start: bytes, size: int) -> int:
    """Bytes of the header, from the first bytes of a file of `size` bytes. Raises BadInput if they cannot be true."""
    length = int.from_bytes(start[:LENGTH], "little")
    if size < LENGTH or length > size - LENGTH:
        raise _damaged(where, f"it has {size} bytes, and its first 8 promise a header of {length}")
    if length > LARGEST_HEADER:
        raise _damaged(where, f"its header takes {length} bytes, more than {LARGEST_HEADER}")
    return length


def tensors_in(where: Path | str, header: bytes, room: int) -> dict[str, StoredTensor]:
    """The tensors that `header` tells of, by name; `room` bytes follow it. Raises BadInput where it cannot be true."""
    entries = _entries(where, header)
    tensors: dict[str, StoredTensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        tensors[name], (start, end) = _tensor(where, _short(name), entry, room)
        spans.append((start, end, _short(name)))
    _check_gapless(where, sorted(spans), room)
    return tensors


def is_pointer(path: Path) -> bool:
    """Whether this is a file that only stands for one that Git LFS has not fetched."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(64).startswith(b"version https://git-lfs")


def _entries(where: Path | str, text: bytes) -> dict[str, Any]:
    """The header as a table, without its metadata."""
    try:
        header = json.loads(text, object_pairs_hook=_without_twins)
    except ValueError as error:
        raise _damaged(where, f"its header is not JSON ({error})") from error
    except RecursionError as error:
        raise _damaged(where, "its header is nested too deeply") from error
    if not isinstance(header, dict):
        raise _damaged(where, f"its header is a {type(header).__name__}, not a table of tensors")
    header.pop("__metadata__", None)
    return header


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name comes twice")
    return table


def _tensor(where: Path | str, name: str, entry: Any, room: int) -> tuple[StoredTensor, tuple[int, int]]:
    """One entry of the header, held against the bytes that the file has, and where they are."""
    try:
        code, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        dtype, item = _DTYPES.get(code, (code.lower(), None))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise _damaged(where, f"its entry for {name} lacks dtype, shape or data_offsets") from error
    if not (_sound((*shape, start, end)) and len(shape) <= _MOST_DIMENSIONS and start <= end):
        raise _damaged(
            where, f"its entry for {name} has shape {_short(shape)} and bytes {_short(start)} to {_short(end)}"
        )
    if end > room:
        raise _damaged(where, f"{name} ends at byte {end} of {room}: the file is cut short")
    if item is not None and end - start != prod(shape) * item:
        raise _damaged(where, f"{name} is {code} {shape} but takes {end - start} bytes instead of {prod(shape) * item}")
    return StoredTensor(dtype, shape, end - start), (start, end)


def _sound(numbers: Iterable[Any]) -> bool:
    return all(type(n) is int and 0 <= n < 1 << 63 for n in numbers)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _check_gapless(where: Path | str, spans: Iterable[tuple[int, int, str]], room: int) -> None:
    """Raises BadInput unless the tensors lie one after the other and fill the file."""
    before = 0
    for start, end, name in spans:
        if start != before:
            raise _damaged(where, f"{name} begins at byte {start}, and what is before it ends at {before}")
        before = end
    if before != room:
        raise _damaged(where, f"its tensors end at byte {before} of {room}")


def _damaged(where: Path | str, what: str) -> BadInput:
    return BadInput(f"{where} is not a whole safetensors file: {what}. Download it again.")
