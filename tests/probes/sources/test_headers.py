"""A safetensors header is read as it is, and a file that is not whole is refused in words."""

import json
import os
import struct
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from memplan.errors import BadInput
from memplan.probes.sources.headers import (
    LARGEST_HEADER,
    StoredTensor,
    is_pointer,
    stored_tensors,
    tensors_in,
)

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def written(path: Path, header: Any, data: bytes = b"") -> Path:
    """A file with that header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_by_torch_s_names(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"a": torch.zeros(2, 3, dtype=dtype)}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    expected = StoredTensor(str(dtype).removeprefix("torch."), (2, 3), 6 * dtype.itemsize)
    assert stored_tensors(tmp_path / "x.safetensors") == {"a": expected}
    assert expected.numel == 6


def test_many_tensors(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2), "b": torch.zeros((), dtype=torch.int8)}, tmp_path / "x.safetensors")
    found = stored_tensors(tmp_path / "x.safetensors")
    assert found == {"a": StoredTensor("float32", (2,), 8), "b": StoredTensor("int8", (), 1)}


def test_a_dtype_of_tomorrow_keeps_its_name(tmp_path: Path) -> None:
    path = written(tmp_path / "x", {"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}, b"..")
    assert stored_tensors(path) == {"a": StoredTensor("f4", (4,), 2)}


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BROKEN = {
    "empty": (b"", "it has 0 bytes"),
    "short": (b"\x01\x02", "it has 2 bytes"),
    "promises too much": (
        struct.pack("<Q", 2**60) + b"{}",
        f"it has 10 bytes, and its first 8 promise a header of {2**60}",
    ),
    "cut in the header": (struct.pack("<Q", 50) + b'{"a"', "promise a header of 50"),
    "no JSON": (struct.pack("<Q", 2) + b"{'", "its header is not JSON"),
    "no text": (struct.pack("<Q", 2) + b"\xff\xfe", "its header is not JSON"),
    "nested": (struct.pack("<Q", 200_000) + b"[" * 200_000, "its header is nested too deeply"),
    "a name twice": (struct.pack("<Q", 15) + b'{"a":{},"a":{}}', "a name comes twice"),
    "a list": (struct.pack("<Q", 2) + b"[]", "its header is a list"),
}


@pytest.mark.parametrize(("content", "words"), BROKEN.values(), ids=BROKEN)
def test_damaged_files(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        BadInput, match=r"model\.safetensors is not a whole safetensors file: .*Download it again"
    ) as error:
        stored_tensors(path)
    assert words in str(error.value)


LYING: dict[str, tuple[dict[str, Any], str]] = {
    "cut short": (
        {"a": {**ENTRY, "data_offsets": [0, 800], "shape": [200]}},
        "a ends at byte 800 of 8: the file is cut",
    ),
    "wrong size": ({"a": {**ENTRY, "shape": [1]}}, "a is F32 (1,) but takes 8 bytes instead of 4"),
    "backwards": ({"a": {**ENTRY, "data_offsets": [8, 0]}}, "shape (2,) and bytes 8 to 0"),
    "negative": ({"a": {**ENTRY, "shape": [-2]}}, "shape (-2,)"),
    "no dtype": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, "lacks dtype, shape or data_offsets"),
    "no table": ({"a": 3}, "lacks dtype, shape or data_offsets"),
    "words for numbers": ({"a": {**ENTRY, "shape": ["two"]}}, "shape ('two',)"),
    "one offset": ({"a": {**ENTRY, "data_offsets": [0]}}, "lacks dtype, shape or data_offsets"),
    "overlapping": (
        {"a": ENTRY, "b": {**ENTRY, "shape": [1], "data_offsets": [4, 8]}},
        "b begins at byte 4, and what is before it ends at 8",
    ),
    "a gap": ({"a": {**ENTRY, "shape": [1], "data_offsets": [4, 8]}}, "a begins at byte 4, and what is before it ends"),
    "bytes of nobody": ({"a": {**ENTRY, "shape": [1], "data_offsets": [0, 4]}}, "its tensors end at byte 4 of 8"),
    "true for one": ({"a": {**ENTRY, "shape": [True, 2]}}, "shape (True, 2)"),
    "sizes beyond counting": ({"a": {**ENTRY, "shape": [10**4000] * 200}}, "its entry for a has shape (1000"),
    "dimensions beyond counting": ({"a": {**ENTRY, "shape": [1] * 10**6}}, "its entry for a has shape (1, 1"),
    "a name beyond reading": ({"a" * 10**6: 3}, f"its entry for {'a' * 80}… lacks"),
    "dtype a number": ({"a": {**ENTRY, "dtype": 4}}, "lacks dtype, shape or data_offsets"),
}


@pytest.mark.parametrize(("header", "words"), LYING.values(), ids=LYING)
def test_lying_headers(tmp_path: Path, header: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match="not a whole safetensors file") as error:
        stored_tensors(written(tmp_path / "x", header, bytes(8)))
    assert words in str(error.value)


def test_a_header_too_long_to_be_one(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.write(struct.pack("<Q", 1 << 33))
        file.truncate(1 << 34)  # takes no room on the disk
    with pytest.raises(BadInput, match=f"its header takes {1 << 33} bytes, more than {LARGEST_HEADER}"):
        stored_tensors(tmp_path / "x")


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    for name in ("folder", "loop", "pipe", "nothing"):
        assert not is_pointer(tmp_path / name)
        with pytest.raises(BadInput, match=f"{name} should hold weights, but it is no file"):
            stored_tensors(tmp_path / name)


def test_metadata_is_no_tensor(tmp_path: Path) -> None:
    assert stored_tensors(written(tmp_path / "x", {"__metadata__": {"format": "pt"}})) == {}


@given(
    header=st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, header: Any) -> None:
    path = written(tmp_path_factory.mktemp("any") / "x", header, bytes(8))
    with suppress(BadInput):
        assert isinstance(stored_tensors(path), dict)


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """A true header: tensors of any shape, one after the other."""
    header, before = {}, 0
    for number, shape in enumerate(draw(st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=5))):
        code, item = draw(st.sampled_from([("F32", 4), ("BF16", 2), ("BOOL", 1)]))
        after = before + prod(shape) * item
        header[f"t{number}"] = {"dtype": code, "shape": shape, "data_offsets": [before, after]}
        before = after
    return header


@given(header=layouts(), lie=st.integers(-9, 9), data=st.data())
def test_a_true_header_is_read_and_a_lie_about_it_refused(
    header: dict[str, Any], lie: int, data: st.DataObject
) -> None:
    room = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    tensors = tensors_in("x", json.dumps(header).encode(), room)
    assert sum(tensor.nbytes for tensor in tensors.values()) == room
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == {k: e["shape"] for k, e in header.items()}
    if not (header and lie):
        return
    entry = data.draw(st.sampled_from(sorted(header)))
    header[entry]["data_offsets"][data.draw(st.integers(0, 1))] += lie
    with pytest.raises(BadInput, match="x is not a whole safetensors file"):
        tensors_in("x", json.dumps(header).encode(), room)


@given(cut=st.integers(0, 99))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = written(tmp_path_factory.mktemp("cut") / "x", {"a": ENTRY}, bytes(8))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * cut // 100])
    with pytest.raises(BadInput, match="not a whole safetensors file"):
        stored_tensors(path)


def test_pointers_of_git_lfs_are_known(tmp_path: Path) -> None:
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert is_pointer(tmp_path / "pointer")
    assert not is_pointer(written(tmp_path / "x", {}))
