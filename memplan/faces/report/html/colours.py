"""The colours of the page, for pictures that are drawn elsewhere."""

import re
from functools import cache
from importlib.resources import files


@cache
def light() -> dict[str, str]:
    """Those on light ground, by their names in page.css, each as "#rrggbb"."""
    sheet = files("memplan.faces.report.html").joinpath("page.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", sheet.partition("}")[0]))
