"""What a GGUF file holds, from its header alone: no tensor is read, and nothing that it claims is believed.

The format: magic, version and two counts, the metadata as key, type and value, then name, dimensions, type and offset
of each tensor; the tensors' bytes follow, each aligned (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from memplan.errors import BadInput, Unsupported
from memplan.probes.sources.headers import LARGEST_HEADER, StoredTensor

SUFFIX = ".gguf"
TYPES = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "BF16": (30, 1, 2),
    "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34),
    "Q8_1": (9, 32, 40), "Q2_K": (10, 256, 84), "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210), "IQ2_XXS": (16, 256, 66), "IQ2_XS": (17, 256, 74),
    "IQ3_XXS": (18, 256, 98), "IQ1_S": (19, 256, 50), "IQ4_NL": (20, 32, 18), "IQ3_S": (21, 256, 110),
    "IQ2_S": (22, 256, 82), "IQ4_XS": (23, 256, 136), "IQ1_M": (29, 256, 56),
}  # fmt: skip
"""Number, elements of a block and bytes of a block, by ggml's name of a type (`GGML_QUANT_SIZES` of gguf-py)."""
PLAIN = {"F32": "float32", "F16": "float16"}
"""torch's names of the types that are loaded as they are. diffusers keeps BF16 in bytes, like the quantized ones."""

_NAMES = {number: name for name, (number, _, _) in TYPES.items()}
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value in the metadata, by the number of its type."""
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_VERSIONS = (2, 3)
_ALIGNMENT = ("general.alignment", 32)
"""The key that says to how many bytes tensors are aligned, and the number without it."""
_MOST_DIMENSIONS = 4
_MOST_ELEMENTS = 2**63
_LONGEST_NAME = 1000
_SHOWN = 80


def gguf_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a GGUF file by name; the dtype is torch's name for PLAIN types, ggml's for all others.

    Raises BadInput for a file that is not whole or not what it says, Unsupported for types, versions and byte orders
    that diffusers does not load and for a header that is too long.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _Reader(path, file.read(LARGEST_HEADER), size).tensors()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}. Check who may read it.") from error


@dataclass
class _Reader:
    """Goes through the header; `at` is the next byte."""

    path: Path
    header: bytes
    size: int
    at: int = 0

    def tensors(self) -> dict[str, StoredTensor]:
        """All of them, held against the bytes that the file has."""
        self._check_kind(self._take(4), self._take(4))
        count, pairs = self._number(8), self._number(8)
        alignment = self._metadata(pairs)
        found: dict[str, StoredTensor] = {}
        spans: list[tuple[int, int, str]] = []
        for _ in range(count):
            name, tensor, offset = self._tensor(alignment)
            if name in found:
                raise self._damaged(f"{_short(name)} comes twice")
            found[name] = tensor
            spans.append((offset, offset + tensor.nbytes, _short(name)))
        self._check(sorted(spans), max(self.size - _aligned(self.at, alignment), 0))
        return found

    def _check_kind(self, magic: bytes, version: bytes) -> None:
        """Raises BadInput for another format, and Unsupported for a GGUF file that the package gguf does not read."""
        little, big = int.from_bytes(version, "little"), int.from_bytes(version, "big")
        if magic != b"GGUF":
            raise self._damaged(f"it begins with {magic!r}, not b'GGUF'")
        if little in _VERSIONS:
            return
        if big in _VERSIONS:
            raise Unsupported(
                f"{self.path} is a big-endian GGUF file, and diffusers loads little-endian ones. Take it as such, or "
                f"convert it: gguf-convert-endian {self.path} little"
            )
        raise Unsupported(f"{self.path} is of GGUF's version {little}, and diffusers loads 2 and 3. Take it as such.")

    def _metadata(self, pairs: int) -> int:
        """Skip the metadata; returns the alignment that it sets."""
        wanted, alignment = _ALIGNMENT
        for _ in range(pairs):
            key, kind = self._text(), self._number(4)
            if key == wanted and kind == _UINT32:
                alignment = self._number(4)
            else:
                self._skip(kind)
        if alignment < 1 or alignment & (alignment - 1):
            raise self._damaged(f"its alignment is {alignment}, which is no power of two")
        return alignment

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            self._take(self._number(8))
        elif kind == _ARRAY:
            inner, length = self._number(4), self._number(8)
            if inner in _SCALARS:
                self._take(_SCALARS[inner] * length)
            elif inner == _STRING:
                for _ in range(length):
                    self._take(self._number(8))
            else:
                raise self._damaged(f"its metadata has an array of type {inner}")
        elif kind in _SCALARS:
            self._take(_SCALARS[kind])
        else:
            raise self._damaged(f"its metadata has a value of type {kind}")

    def _tensor(self, alignment: int) -> tuple[str, StoredTensor, int]:
        """Name, tensor and where its bytes begin; the dimensions are stored last to first."""
        name, rank = self._text(), self._number(4)
        if rank > _MOST_DIMENSIONS:
            raise self._damaged(f"{_short(name)} has {rank} dimensions")
        shape = tuple(self._number(8) for _ in range(rank))[::-1]
        if not all(0 < size < _MOST_ELEMENTS for size in shape):
            raise self._damaged(f"{_short(name)} has the shape {shape}")
        number, offset = self._number(4), self._number(8)
        if number not in _NAMES:
            raise Unsupported(f"{self.path}: {_short(name)} is of ggml type {number}, which diffusers does not load.")
        kind = _NAMES[number]
        _, block, item = TYPES[kind]
        if (shape[-1] if shape else 1) % block or offset % alignment:
            raise self._damaged(f"{_short(name)} is {kind} {shape} at byte {offset}, which are no whole blocks")
        return name, StoredTensor(PLAIN.get(kind, kind), shape, prod(shape) // block * item), offset

    def _check(self, spans: Iterable[tuple[int, int, str]], room: int) -> None:
        """Raises BadInput unless the tensors lie side by side within the file."""
        before = 0
        for start, end, name in spans:
            if start < before:
                raise self._damaged(f"{name} begins at byte {start}, and what is before it ends at {before}")
            before = end
        if before > room:
            raise self._damaged(f"its tensors end at byte {before} of {room}: the file is cut short")

    def _text(self) -> str:
        length = self._number(8)
        if length > _LONGEST_NAME:
            raise self._damaged(f"it has a name of {length} bytes")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise self._damaged("it has a name that is no text") from error

    def _number(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _take(self, length: int) -> bytes:
        end = self.at + length
        if end > self.size:
            raise self._damaged(f"its header goes on to byte {end} of {self.size}: the file is cut short")
        if end > len(self.header):
            raise Unsupported(
                f"{self.path} has a header of more than {LARGEST_HEADER} bytes, the most that is read: a tokenizer's "
                f"tables, perhaps. Take a file without them."
            )
        taken, self.at = self.header[self.at : end], end
        return taken

    def _damaged(self, what: str) -> BadInput:
        return BadInput(f"{self.path} is not a whole GGUF file: {what}. Download it again.")


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
