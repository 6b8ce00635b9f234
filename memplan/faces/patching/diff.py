"""A change of a file as people read it."""

from difflib import unified_diff
from io import BytesIO
from tokenize import detect_encoding


def diff(name: str, before: bytes, after: bytes) -> str:
    """The unified diff of the file `name`; "" where nothing has changed."""
    encoding, _ = detect_encoding(BytesIO(before).readline)
    old, new = (text.decode(encoding, "replace").splitlines(keepends=True) for text in (before, after))
    lines = unified_diff(old, new, f"a/{name}", f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
