"""Writes GGUF files: their headers by hand, with room for the tensors and nothing in it, or whole ones with gguf."""

import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

from memplan.probes.sources.gguf_headers import TYPES

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""ggml's type and the shape of each tensor, by name."""
ALIGNMENT = 32


def text(value: str) -> bytes:
    """A string as GGUF has it: its length, then its bytes."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def number(value: int, width: str = "<Q") -> bytes:
    """A number as GGUF has it."""
    return struct.pack(width, value)


def header(tensors: Tensors, metadata: bytes = b"", pairs: int = 0) -> bytes:
    """The header of a file with these tensors, each where the one before it ends."""
    whole = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), pairs) + metadata
    at = 0
    for name, (kind, shape) in tensors.items():
        code, block, item = TYPES[kind]
        sizes = b"".join(number(size) for size in reversed(shape))
        whole += text(name) + number(len(shape), "<I") + sizes + number(code, "<I") + number(at)
        at = aligned(at + prod(shape) // block * item)
    return whole


def aligned(offset: int) -> int:
    """The next byte at which a tensor may begin."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def write(path: Path, tensors: Tensors, metadata: bytes = b"", pairs: int = 0) -> Path:
    """A whole file, without taking the room on the disk."""
    start = header(tensors, metadata, pairs)
    sizes = (prod(shape) // TYPES[kind][1] * TYPES[kind][2] for kind, shape in tensors.values())
    with path.open("wb") as file:
        file.write(start)
        file.truncate(aligned(len(start)) + sum(map(aligned, sizes)))
    return path


def quantized(path: Path, model: Any, kind: str, big_endian: bool = False) -> Path:
    """A file as the package gguf writes it: the weights of the linear layers in `kind` where they fit, the rest in F32.

    Of kinds that it reads but cannot make the bytes are zeros.
    """
    gguf: Any = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "flux", endianess=gguf.GGUFEndian.BIG if big_endian else gguf.GGUFEndian.LITTLE)
    _, block, item = TYPES[kind]
    linear = {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    for name, weight in model.state_dict().items():
        values = weight.float().numpy()
        fits = name in linear and values.shape[-1] % block == 0
        code = gguf.GGMLQuantizationType[kind if fits else "F32"]
        try:
            values = gguf.quantize(values, code)
        except NotImplementedError:
            empty = torch.zeros(*values.shape[:-1], values.shape[-1] // block * item, dtype=torch.uint8)
            values = empty.numpy()
        writer.add_tensor(name, values, raw_dtype=code)
    for part in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        part()
    return path
