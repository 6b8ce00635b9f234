"""What every page is put into: one file, with its styles and scripts inside it."""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files


def filled(title: str, body: str, styles: Sequence[str], scripts: Sequence[str], data: str = "") -> str:
    """A page of these parts. `title` and `body` are HTML, `styles` and `scripts` names of files of this folder."""
    parts: Mapping[str, str] = {
        "title": title,
        "styles": "\n".join(map(_file, styles)),
        "body": body,
        "data": data,
        "scripts": "\n".join(f"<script>\n{_file(name)}\n</script>" for name in scripts),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda gap: parts[gap[1]], _file("page.html"))


def _file(name: str) -> str:
    return files("memplan.faces.report.html").joinpath(name).read_text(encoding="utf-8")
