"""Pictures of both sides beside each other, with what is between them; drawn with Pillow."""

from collections.abc import Sequence
from io import BytesIO
from itertools import groupby
from typing import Any

import torch

from memplan.errors import BadInput
from memplan.faces.compare.comparison import Comparison, Pair
from memplan.faces.compare.metrics import COLOURS, Likeness
from memplan.faces.compare.rows import shown_as
from memplan.faces.report.html.colours import light

FRAMES, ROWS = 4, 8
"""Frames of each video, and rows at most."""
LEAST, MOST = 256, 512
"""Pixels of the longer side of what is shown: smaller pictures are enlarged to it, larger ones reduced."""
GAP, TITLE, CAPTION = 16, 84, 30
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""By how much differences may be amplified."""
LONGEST = 90
"""Characters of a line."""
Row = tuple[Pair, Likeness]


def picture(found: Comparison) -> bytes:
    """A PNG: a row for each picture, of videos some frames, evenly chosen. Raises BadInput where there is none."""
    from PIL import Image, ImageDraw

    rows = chosen(found)
    if not rows:
        raise BadInput("there is no picture to show: the plan failed, or the call returns none")
    factor = amplified(rows)
    parts = [[_scaled(part) for part in _parts(pair, factor)] for pair, _ in rows]
    wide, high = max(part.width for row in parts for part in row), [row[0].height for row in parts]
    size = 4 * GAP + 3 * wide, TITLE + sum(high) + len(rows) * (CAPTION + GAP)
    colours = light()
    canvas = Image.new("RGB", size, colours["ground"])
    pen = _Pen(ImageDraw.Draw(canvas), colours)
    pen.line((GAP, 10), _short(f"memplan compare: {found.plan.plan}"), 18)
    pen.line((GAP, 32), _short(f"against {found.baseline.plan}"), 14, soft=True)
    titles = "without the plan", "with the plan", f"difference x {factor}" if factor > 1 else "difference"
    for column, title in enumerate(titles):
        pen.line((GAP + column * (wide + GAP), TITLE - 26), title, 16)
    top = TITLE
    for row, (_, one) in zip(parts, rows, strict=True):
        for column, part in enumerate(row):
            canvas.paste(part, (GAP + column * (wide + GAP), top))
        pen.line((GAP, top + row[0].height + 4), caption(one), 14, soft=True)
        top += row[0].height + CAPTION + GAP
    out = BytesIO()
    canvas.save(out, "PNG", optimize=True)
    return out.getvalue()


def chosen(found: Comparison) -> list[Row]:
    """The pictures that are shown: the first ones, of videos frames that are evenly apart."""
    both = zip(found.pairs, found.likeness, strict=True)
    shown = [row for row in both if row[1].kind == "picture" and not row[1].why]
    rows: list[Row] = []
    for _, group in groupby(shown, key=lambda row: (row[1].seed, row[1].output, row[1].item)):
        rows += evenly(list(group), FRAMES)
    return rows[:ROWS]


def evenly(every: Sequence[Any], number: int) -> list[Any]:
    """At most so many of them, the first and the last among them."""
    if len(every) <= number:
        return list(every)
    return [every[round(i * (len(every) - 1) / (number - 1))] for i in range(number)]


def amplified(rows: Sequence[Row]) -> int:
    """The most by which differences can be multiplied with none of them beyond white."""
    most = max((one.most or 0.0 for _, one in rows), default=0.0)
    return max((step for step in STEPS if most and most * step <= 1), default=1)


def caption(one: Likeness) -> str:
    """What a row is of, and how far both sides are apart."""
    name = one.name if one.frame is None else f"{one.name}, frame {one.frame}"
    figures = [] if one.psnr is None else [f"PSNR {shown_as('psnr', one.psnr)} dB"]
    figures += [] if one.ssim is None else [f"SSIM {shown_as('ssim', one.ssim)}"]
    return f"seed {one.seed}, {name}: {'equal' if one.equal else ', '.join(figures)}"


def image(data: torch.Tensor) -> Any:
    """Channels, height and width within 0 to 1 as an image of Pillow; what is no number is black."""
    from PIL import Image

    colours = data.nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)
    colours = colours.expand(COLOURS, -1, -1) if len(colours) == 1 else colours
    pixels = (colours * 255).round().byte().permute(1, 2, 0).contiguous()
    return Image.fromarray(pixels.numpy())


def _parts(pair: Pair, factor: int) -> tuple[Any, Any, Any]:
    """Both sides and their difference; where only the transparency differs, that is white."""
    assert pair.before is not None
    assert pair.after is not None
    one, other = pair.before.unit, pair.after.unit
    apart = (one - other).abs() * factor
    colours = torch.maximum(apart[:COLOURS], apart[COLOURS:]) if len(apart) > COLOURS else apart
    return image(one), image(other), image(colours)


def _scaled(part: Any) -> Any:
    from PIL import Image

    longer = max(part.size)
    if LEAST <= longer <= MOST:
        return part
    scale = (LEAST if longer < LEAST else MOST) / longer
    size = tuple(max(1, round(side * scale)) for side in part.size)
    return part.resize(size, Image.Resampling.NEAREST if longer < LEAST else Image.Resampling.LANCZOS)


def _short(words: str) -> str:
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"


class _Pen:
    """Writes lines of text."""

    def __init__(self, draw: Any, colours: dict[str, str]) -> None:
        self.draw, self.colours = draw, colours

    def line(self, at: tuple[int, int], words: str, size: int, *, soft: bool = False) -> None:
        """Words at a place."""
        from PIL import ImageFont

        colour = self.colours["soft" if soft else "ink"]
        self.draw.text(at, words, fill=colour, font=ImageFont.load_default(size))
