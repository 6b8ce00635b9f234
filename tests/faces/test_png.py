"""The still picture: of the size it says, with the colours of the page, and as high as the plan's peak."""

from io import BytesIO
from typing import Any

import pytest
from PIL import Image, ImageColor, ImageDraw

from memplan.faces.report import png
from memplan.faces.report.html.colours import light
from memplan.faces.report.html.timelines import Names, drawn, rows
from memplan.planner import draw
from tests.faces import small


@pytest.mark.parametrize("vram", [1, 8])
def test_the_picture_is_as_high_as_the_peak(vram: float) -> None:
    found = small.found(vram)
    plan = found.pick("balanced") or found.nearest
    with Image.open(BytesIO(png.picture(plan))) as picture:
        assert (picture.format, picture.size) == ("PNG", (png.WIDE, png.HIGH))
        seen = picture.convert("RGB")
    stacked = {ImageColor.getrgb(light()[name]) for name in ("w0", "w1", "w2", "activations", "context", "unused")}
    inside = range(png.LEFT, png.WIDE - png.RIGHT)
    highest = min(y for x in inside for y in range(png.TOP, png.HIGH - png.BOTTOM) if seen.getpixel((x, y)) in stacked)
    shown = list(rows(drawn(plan, Names())))
    top = max(sum(parts.values()) for _, _, parts in shown)
    limit = plan.run.facts.machine.vram
    most = max(top, limit if limit <= 2.5 * top else 0) * 1.12
    assert highest == pytest.approx(png.HIGH - png.BOTTOM - top / most * (png.HIGH - png.TOP - png.BOTTOM), abs=8)


def test_its_rows_are_the_bill() -> None:
    plan = draw(small.facts(), ())
    shown = list(rows(drawn(plan, Names())))
    assert max(sum(parts.values()) for _, _, parts in shown) == max(p.memory.required for p in plan.bill.peaks)
    assert shown[-1][1] == pytest.approx(plan.bill.seconds)


@pytest.mark.parametrize("vram", [1, 8])
def test_what_is_missing_is_written_above(vram: float, monkeypatch: pytest.MonkeyPatch) -> None:
    found, said = small.found(vram), list[str]()
    text = png._Drawing.text

    def noted(drawing: Any, at: tuple[float, float], words: str, *style: Any) -> None:
        said.append(words)
        text(drawing, at, words, *style)

    monkeypatch.setattr(png._Drawing, "text", noted)
    plan = found.pick("balanced") or found.nearest
    png.picture(plan)
    missing = [words for words in said if words.startswith("does not fit")]
    assert missing == [png.shorten(f"does not fit: needs {', and '.join(map(str, plan.shortages))}")] * (vram == 1)


def test_names_of_phases_do_not_meet() -> None:
    drawing = png._Drawing(ImageDraw.Draw(Image.new("RGB", (png.WIDE, png.HIGH))), draw(small.facts(), ()))
    left, right = float(png.LEFT), float(png.WIDE - png.RIGHT)
    narrow = [("text encoding", left, left + 3), ("denoising", left + 3, right - 9), ("decoding", right - 9, right)]
    found = dict(drawing.placed(narrow))
    assert found["text encoding"] == left + 3 + png.GAP
    assert found["decoding"] + drawing.length("decoding") == right - 9 - png.GAP
    crowded = dict(drawing.placed([("text encoding", left, left + 3), ("denoising", left + 3, left + 120)]))
    assert crowded.keys() == {"denoising"}
