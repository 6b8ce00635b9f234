"""A safetensors header is read as it is, and a file that is not whole is refused in words."""

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from memplan.errors import BadInput
from memplan.probe.headers import StoredTensor, is_pointer, stored_tensors, tensor_dtypes

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
    assert tensor_dtypes(tmp_path / "x.safetensors") == {"a": "float32", "b": "int8"}


def test_a_dtype_of_tomorrow_keeps_its_name(tmp_path: Path) -> None:
    path = written(tmp_path / "x", {"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}, b"..")
    assert tensor_dtypes(path) == {"a": "f4"}


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
    "dtype a number": ({"a": {**ENTRY, "dtype": 4}}, "lacks dtype, shape or data_offsets"),
}


@pytest.mark.parametrize(("header", "words"), LYING.values(), ids=LYING)
def test_lying_headers(tmp_path: Path, header: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match="not a whole safetensors file") as error:
        stored_tensors(written(tmp_path / "x", header, bytes(8)))
    assert words in str(error.value)


def test_metadata_is_no_tensor(tmp_path: Path) -> None:
    assert stored_tensors(written(tmp_path / "x", {"__metadata__": {"format": "pt"}})) == {}


@given(
    header=st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, header: Any) -> None:
    path = written(tmp_path_factory.mktemp("any") / "x", header, bytes(8))
    with suppress(BadInput):
        assert isinstance(stored_tensors(path), dict)


def test_pointers_of_git_lfs_are_known(tmp_path: Path) -> None:
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert is_pointer(tmp_path / "pointer")
    assert not is_pointer(written(tmp_path / "x", {}))
