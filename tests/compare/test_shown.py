"""How a comparison is shown: as a table, JSON, pictures and files, and on the command line."""

import json
import math
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from memplan.errors import BadInput
from memplan.faces.cli import main
from memplan.faces.compare import pictures, rows, table
from memplan.faces.compare.comparison import Comparison
from memplan.faces.compare.metrics import Likeness
from memplan.faces.history.record import Figures
from tests.compare.sides import LOSSY
from tests.pipelines import build


@pytest.mark.parametrize(
    ("taken", "pace", "said"),
    [
        (
            ((2.0,), (1.0,)),
            2.0,
            "2.00 times as fast as without the plan, by one warm call each, so",
        ),
        (
            ((2.0, 3.0, 9.0), (1.0, 1.5, 2.0)),
            2.0,
            "(1.00 to 9.00 by the extremes of 3 warm calls each), so that neither side",
        ),
        (((4.0, 5.0), (1.0, 2.0)), 3.0, "(2.00 to 5.00 by the extremes of 2 warm calls each) undone"),
        (((), ()), None, ""),
    ],
    ids=["one", "overlapping", "apart", "cold"],
)
def test_how_fast_it_is_comes_with_how_far_calls_differ(
    lossy: Comparison, taken: tuple[tuple[float, ...], tuple[float, ...]], pace: float | None, said: str
) -> None:
    """A first call alone tells nothing: the side without the plan starts what both need."""
    first, second = (tuple(Figures(seconds=one) for one in side) for side in taken)
    sides = replace(lossy.baseline, steady=first), replace(lossy.plan, steady=second)
    found = replace(lossy, baseline=sides[0], plan=sides[1], undone=True)
    assert found.speedup == pace
    text = " ".join(str(found).split())
    assert said in text if said else "times as fast" not in text
    assert json.loads(table.as_json(found))["speedups"] == (list(found.speedups) if found.speedups else None)


def test_of_a_video_frames_that_are_equal_or_no_numbers_hide_nothing(lossy: Comparison) -> None:
    at: dict[str, Any] = {"seed": 0, "output": "frames", "item": 0, "kind": "picture"}
    known = [Likeness(frame=i, **at, psnr=value, ssim=0.999999, most=0.1) for i, value in ((1, 20.0), (2, 40.0))]
    same = Likeness(frame=0, **at, equal=True, psnr=math.inf, ssim=1.0, most=0.0)
    lost = Likeness(frame=3, **at, why="not finite: 3 of 9 with the plan")
    found = replace(lossy, likeness=(same, *known, lost))
    _, broken, mean, worst = rows.outputs(found)
    assert broken[1:3] == ("frames 0, 1 of 4 frames", "not finite: 3 of 9 with the plan")
    assert mean[1] == "frames 0, mean of 3"
    assert float(mean[2]) == pytest.approx(-10 * math.log10((0 + 1e-2 + 1e-4) / 3), abs=0.01)
    assert worst[1:4] == ("the worst, frame 1", "20.00", "0.99999"), "what is not equal has no SSIM of 1"
    assert "1 of 4 outputs cannot be compared: not finite: 3 of 9 with the plan" in table.verdict(found)
    assert not found.equal


# ---- how it is shown -------------------------------------------------------------------------------------------------
def test_the_table_names_what_there_is(lossy: Comparison) -> None:
    text = str(lossy)
    head = next(line for line in text.splitlines() if "warm s" in line)
    assert head.split() == ["warm", "s", "first", "s", "held", "RAM"]
    rows = {line[:20].strip(): line for line in text.splitlines()}
    assert {"without the plan", "with the plan", "change"} <= rows.keys()
    assert f"the worst: PSNR {lossy.psnr:.2f} dB" in text
    assert "LPIPS is not given" in text
    assert sum(line.split()[:1] in (["3"], ["4"]) for line in text.splitlines()) == 4
    peaked = replace(lossy.plan, predicted=replace(lossy.plan.usual, allocated=2**30, reserved=2**31))
    shown = str(replace(lossy, plan=peaked, device="cuda"))
    assert next(line for line in shown.splitlines() if "with the plan" in line).split()[-3:-1] == ["1,024", "2,048"]


def test_json_holds_every_output(lossy: Comparison) -> None:
    told = json.loads(table.as_json(lossy))
    assert [one["psnr"] for one in told["outputs"]] == [one.psnr for one in lossy.likeness]
    assert told["baseline"]["usual"]["seconds"] == lossy.baseline.usual.seconds
    assert (told["schema"], told["equal"], told["undone"]) == (1, False, None)
    assert "NaN" not in table.as_json(lossy)
    assert "Infinity" not in table.as_json(lossy)


def test_notebooks_show_tables(lossy: Comparison) -> None:
    html = lossy._repr_html_()
    assert html.count("<table>") == 2
    assert repr(lossy).startswith(f"<Comparison of {LOSSY} with everything on the CPU: not equal; the worst: PSNR")


def test_the_picture_has_both_sides_and_their_difference(lossy: Comparison) -> None:
    rows = pictures.chosen(lossy)
    factor = pictures.amplified(rows)
    assert factor > 1
    assert (lossy.most or 0) * factor <= 1
    with Image.open(BytesIO(lossy.picture())) as opened:
        seen = opened.convert("RGB")
    cell, gap = pictures.LEAST, pictures.GAP
    assert seen.size == (3 * cell + 4 * gap, pictures.TITLE + 4 * (cell + pictures.CAPTION + gap))
    one, other = (side.unit for side in (lossy.pairs[0].before, lossy.pairs[0].after) if side)
    expected = (one, other, (one - other).abs() * factor)
    for column, part in enumerate(expected):  # each pixel of 32 x 32 is a square of 8 x 8
        at = gap + column * (cell + gap) + 8 * 5 + 4, pictures.TITLE + 8 * 7 + 4
        assert seen.getpixel(at) == tuple((part[:, 7, 5] * 255).round().int().tolist())


def test_every_picture_can_be_written(lossy: Comparison, tmp_path: Path) -> None:
    files = lossy.save(tmp_path / "new" / "folder")
    assert len(files) == 8
    assert sorted(file.name for file in files)[0] == "3-images-0-with.png"
    with Image.open(files[0]) as opened:
        assert opened.size == (32, 32)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="file cannot be written: File exists"):
        lossy.save(tmp_path / "file")


@pytest.mark.parametrize(("number", "taken"), [(3, [0, 1, 2]), (9, [0, 3, 5, 8]), (81, [0, 27, 53, 80])])
def test_frames_are_evenly_apart(number: int, taken: list[int]) -> None:
    assert pictures.evenly(range(number), 4) == taken


# ---- the command line ------------------------------------------------------------------------------------------------
@pytest.mark.wide
def test_a_saved_pipeline_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("sd15").save_pretrained(tmp_path / "sd15")
    size = "--height 32 --width 32 --steps 1"
    line = (
        f"--with int8_weight_only:unet --device cpu {size} --seed 5 --seeds 2 --repeat 0 --json --png {tmp_path}/a.png"
    )
    assert main(["compare", str(tmp_path / "sd15"), *line.split(), "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["plan"]["plan"], told["model"]) == ("int8_weight_only:unet", "StableDiffusionPipeline")
    assert [one["seed"] for one in told["outputs"]] == [5, 6]
    assert not told["equal"]
    assert "int8_weight_only can't be undone" in told["notes"][-1]
    assert told["plan"]["predicted"] is None, "a CPU without a card has nothing that could be predicted"
    assert f"wrote {tmp_path}/a.png" in err
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_plan_that_failed_is_an_exit_code(
    lossy: Comparison, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("memplan.faces.cli.compare._compared", lambda args, progress: lossy)
    line = ["compare", "sdxl", "--plan", "vae_slicing", "--png", str(tmp_path / "a.png")]
    assert main(line) == 0
    assert (tmp_path / "a.png").read_bytes() == lossy.picture()
    broken = replace(lossy, plan=replace(lossy.plan, failed="no luck"), likeness=(), pairs=())
    monkeypatch.setattr("memplan.faces.cli.compare._compared", lambda args, progress: broken)
    capsys.readouterr()
    assert main(line) == 1
    assert "the plan failed: no luck" in capsys.readouterr().out


def test_files_that_are_no_plans_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.txt").touch()
    assert main(["compare", "sdxl", "--with", str(tmp_path / "plan.txt"), "--device", "cpu"]) == 2
    assert "plans of memplan recommend --save end in .json" in capsys.readouterr().err
    assert main(["compare", "sdxl", "--with", str(tmp_path / "plan.json"), "--device", "cpu"]) == 2
    assert "plan.json cannot be read" in capsys.readouterr().err
