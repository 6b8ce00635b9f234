"""The header of a GGUF file says what it holds, and one that lies is refused, soon and in a sentence."""

import struct
import time
from pathlib import Path

import pytest

from memplan.errors import BadInput, Unsupported
from memplan.probes.sources.gguf_headers import TYPES, gguf_tensors
from memplan.probes.sources.headers import LARGEST_HEADER, StoredTensor
from tests.probes.gguf_files import Tensors, header, number, text, write

SMALL: Tensors = {"a.weight": ("Q4_K", (4, 512)), "a.bias": ("F32", (4,)), "b": ("BF16", (2, 3))}


def test_types_shapes_and_bytes(tmp_path: Path) -> None:
    assert gguf_tensors(write(tmp_path / "x.gguf", SMALL)) == {
        "a.weight": StoredTensor("Q4_K", (4, 512), 4 * 2 * 144),
        "a.bias": StoredTensor("float32", (4,), 16),
        "b": StoredTensor("BF16", (2, 3), 12),
    }


def test_metadata_of_every_kind_is_passed_over(tmp_path: Path) -> None:
    values = [number(4, "<I") + number(7, "<I"), number(12, "<I") + bytes(8), number(8, "<I") + text("flux")]
    values += [number(9, "<I") + number(5, "<I") + number(3) + bytes(12)]
    values += [number(9, "<I") + number(8, "<I") + number(2) + text("one") + text("two")]
    metadata = b"".join(text(f"key.{i}") + value for i, value in enumerate(values))
    path = write(tmp_path / "x.gguf", SMALL, metadata, len(values))
    assert list(gguf_tensors(path)) == list(SMALL)


def test_an_alignment_of_its_own(tmp_path: Path) -> None:
    wide = text("general.alignment") + number(4, "<I") + number(4096, "<I")
    path = tmp_path / "x.gguf"
    one: Tensors = {"a": ("F32", (3,))}
    path.write_bytes(header(one, wide, 1).ljust(4096, b"\0") + bytes(12))
    assert gguf_tensors(path)["a"].nbytes == 12
    path.write_bytes(header(one, wide, 1) + bytes(12))
    with pytest.raises(BadInput, match="its tensors end at byte 12 of 0: the file is cut short"):
        gguf_tensors(path)


@pytest.mark.parametrize("kind", TYPES)
def test_bytes_of_a_block(tmp_path: Path, kind: str) -> None:
    stored = gguf_tensors(write(tmp_path / "x.gguf", {"a": (kind, (2, 256))}))["a"]
    assert stored.nbytes * TYPES[kind][1] == 512 * TYPES[kind][2]


WHOLE = header(SMALL)
START = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)


def tensor(name: bytes = text("a"), rank: int = 1, sizes: bytes = number(4), kind: int = 0, at: int = 0) -> bytes:
    return START + name + number(rank, "<I") + sizes + number(kind, "<I") + number(at)


LIES = {
    "nothing": (b"", "goes on to byte 4 of 0: the file is cut short"),
    "another format": (b"PK\3\4" + bytes(40), "it begins with b'PK"),
    "cut in the header": (WHOLE[:-9], "of 142: the file is cut short"),
    "cut in the tensors": (WHOLE, "the file is cut short"),
    "2**64 tensors": (b"GGUF" + struct.pack("<IQQ", 3, 2**64 - 1, 0), "its header goes on to byte 32 of 24"),
    "2**64 pairs": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**64 - 1), "its header goes on to byte 32 of 24"),
    "a long name": (tensor(number(2**60)), "a name of 1152921504606846976 bytes"),
    "no text": (tensor(number(2) + b"\xff\xfe"), "a name that is no text"),
    "many dimensions": (tensor(rank=2**31), "a has 2147483648 dimensions"),
    "no elements": (tensor(rank=2, sizes=number(2**63) + number(0)), r"a has the shape \(0, 9223372036854775808\)"),
    "part of a block": (tensor(sizes=number(33), kind=2), r"a is Q4_0 \(33,\) at byte 0, which are no whole blocks"),
    "between two bytes": (tensor(at=7), "at byte 7, which are no whole blocks"),
    "more than there is": (tensor(sizes=number(2**62)) + bytes(64), "end at byte 18446744073709551616 of"),
    "an array of arrays": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + number(9, "<I") + number(9, "<I") + number(1),
        "an array of type 9",
    ),
    "a long array": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + number(9, "<I") + number(0, "<I") + number(2**63),
        "goes on to byte 9223372036854775",
    ),
    "an unknown value": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + number(99, "<I"), "a value of type 99",
    ),
    "no alignment": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("general.alignment") + number(4, "<I") + number(0, "<I"),
        "its alignment is 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LIES)
def test_what_cannot_be_true(tmp_path: Path, case: str) -> None:
    content, words = LIES[case]
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=words):
        gguf_tensors(path)


def test_two_tensors_in_one_place(tmp_path: Path) -> None:
    one = header({"a": ("F32", (64,))})[24:]
    path = tmp_path / "x.gguf"
    for name, words in ((b"b", "b begins at byte 0, and what is before it ends at 256"), (b"a", "a comes twice")):
        both = b"GGUF" + struct.pack("<IQQ", 3, 2, 0) + one + one.replace(b"a", name, 1)
        path.write_bytes(both.ljust(1024, b"\0"))
        with pytest.raises(BadInput, match=words):
            gguf_tensors(path)


def test_a_type_of_tomorrow(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(tensor(kind=39).ljust(1024, b"\0"))
    with pytest.raises(Unsupported, match="a is of ggml type 39, which diffusers does not load"):
        gguf_tensors(path)


OTHERS = {
    "big-endian": (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), r"is a big-endian .* gguf-convert-endian .*x\.gguf little"),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "is of GGUF's version 1, and diffusers loads 2 and 3"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_diffusers_does_not_load(tmp_path: Path, case: str) -> None:
    content, words = OTHERS[case]
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(Unsupported, match=words):
        gguf_tensors(path)


def test_a_header_that_is_too_long(tmp_path: Path) -> None:
    """It is whole, so that it is not said to be damaged; one that ends before it should is."""
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + number(9, "<I") + number(0, "<I")
    path = tmp_path / "x.gguf"
    for missing, words in ((0, "header of more than 25000000 bytes, the most that is read"), (1, "cut short")):
        with path.open("wb") as file:
            file.write(start + number(LARGEST_HEADER))
            file.truncate(len(start) + 8 + LARGEST_HEADER - missing)
        with pytest.raises(BadInput if missing else Unsupported, match=words):
            gguf_tensors(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        gguf_tensors(tmp_path / "x.gguf")


def test_the_longest_header_that_is_read(tmp_path: Path) -> None:
    count = LARGEST_HEADER // 9
    array = text("k") + number(9, "<I") + number(8, "<I") + number(count) + bytes(8) * count
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array)
    began = time.process_time()
    assert gguf_tensors(path) == {}
    assert time.process_time() - began < 30
