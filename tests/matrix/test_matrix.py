"""The matrix: which cases are asked, what a row holds, how a run goes on, and what is shown."""

import re
import shlex
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from memplan.__main__ import main
from memplan.catalogue.gpus import cards
from memplan.errors import BadInput
from memplan.faces import api
from memplan.faces.matrix import asking, pricing
from memplan.faces.matrix.asking import cases
from memplan.faces.matrix.case import FITS, NOTHING_FITS, REFUSED, Case, Row
from memplan.faces.matrix.file import read, write
from memplan.faces.matrix.pricing import Matrix, row_of
from memplan.faces.matrix.version import digest, program, sources
from memplan.faces.report.html.matrix import command, page
from memplan.faces.report.layout import WIDTH
from memplan.faces.report.matrix import matrix, short
from memplan.facts import GIB, Facts
from tests.faces import browser, small
from tests.pipelines import build

ASKED = Case("", "", 0.0)
SMALL = Case("small", "a card", 32.0)
SIZES = {"NVIDIA GeForce RTX 4070": 8.0, "NVIDIA GeForce RTX 2060": 0.5, "a card": 8.0}
"""GiB of the cards on which the made-up pipeline is measured."""


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any], api.Target]]:
    """Has every model measured as the made-up pipeline; the value tells for what."""
    asked: list[tuple[Any, dict[str, Any], api.Target]] = []

    def facts(source: Any, call: dict[str, Any], *, target: api.Target, **_: Any) -> Facts:
        asked.append((source, dict(call), target))
        if call.get("height") == 7:
            raise BadInput("the height must be divisible by 8")
        return small.facts(SIZES[target.gpu or ""], target.ram or 0.0)

    monkeypatch.setattr(api, "facts", facts)
    return asked


@cache
def tight() -> Row:
    """The made-up pipeline where nothing fits."""
    return row_of(replace(SMALL, gpu="NVIDIA GeForce RTX 2060"))


def row(model: str = "small", gpu: str = "a card", ram: float = 32.0, **others: Any) -> Row:
    figures = {"seconds": 63.0, "vram_gib": 9.49, "ram_gib": 4.0, "traffic_gib": 0.0, "error": 0.01, "tiles": 0}
    words = {"verdict": FITS, "plan": "a plan", "loss": "slight", "program": program()}
    usual: dict[str, Any] = {**figures, **words, **others}
    return Row(model, gpu, ram, **usual)


# ---- what is asked ---------------------------------------------------------------------------------------------------
def test_every_model_on_every_card_each_once() -> None:
    found = cases(["sdxl", "SD15", "sd1.5"], ["4070", "RTX 2060", "rtx4070"], [32, 16], {}, ASKED)
    assert [(case.model, short(case.gpu), case.ram) for case in found] == [
        (model, card, ram) for model in ("sdxl", "sd1.5") for ram in (32, 16) for card in ("RTX 4070", "RTX 2060")
    ]


@pytest.mark.parametrize(
    ("models", "gpus", "sentence"),
    [
        (["sdxl", "sdxk"], ["4070"], "Did you mean sdxl or sd3-medium? Bundled: animatediff"),
        (["sdxl", "./nowhere"], ["4070"], "no folder"),
        (["sdxl"], ["4070", "RTX 4071"], 'No card of the catalogue is called "RTX 4071". Do you mean "'),
        (["sdxl"], ["toaster"], f"It has {len(cards())}, as NVIDIA "),
    ],
)
def test_what_does_not_exist_is_told_with_what_does(models: list[str], gpus: list[str], sentence: str) -> None:
    with pytest.raises(BadInput, match=re.escape(sentence)):
        cases(models, gpus, [32], {}, ASKED)


def test_each_model_is_asked_for_the_arguments_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"sd1.5": frozenset({"prompt", "height"}), "ltx-video": frozenset({"prompt", "height", "num_frames"})}
    monkeypatch.setattr(asking, "taken", known.__getitem__)
    found = cases(["sd1.5", "ltx-video"], ["4070"], [32], {"height": 512, "num_frames": 9}, ASKED)
    assert [case.arguments for case in found] == [{"height": 512}, {"height": 512, "num_frames": 9}]
    with pytest.raises(BadInput, match=r"none of the models takes an argument 'heigth'. Did you mean height\?"):
        cases(["sd1.5"], ["4070"], [32], {"heigth": 512}, ASKED)


@pytest.mark.slow
def test_what_a_model_takes_is_what_its_pipeline_names(tmp_path: Path) -> None:
    assert {"prompt", "height"} <= asking.taken("sd1.5")
    assert not {"num_frames", "self"} & asking.taken("sd1.5")
    build("sd15").save_pretrained(tmp_path)
    assert asking.taken(str(tmp_path)) == asking.taken("sd1.5")


# ---- rows ------------------------------------------------------------------------------------------------------------
def test_a_row_is_the_pick() -> None:
    found, pick = row_of(replace(SMALL, prefer="speed")), small.found().pick("speed")
    assert pick
    assert (found.case, found.verdict, found.plan) == (replace(SMALL, prefer="speed"), FITS, str(pick))
    assert found.seconds == round(pick.bill.seconds, 3)
    assert found.vram_gib == round(pick.bill.peak.memory.required / GIB, 3)
    assert (found.loss, found.tiles, found.why) == (pick.bill.loss.word, pick.bill.loss.tiles, "")


def test_where_nothing_fits_or_the_call_is_refused_the_row_says_why() -> None:
    none = tight()
    assert (none.verdict, none.plan, none.seconds) == (NOTHING_FITS, "", None)
    assert re.fullmatch(r"The nearest plan needs .* of device memory in .* MiB more than .* there are\.", none.why)
    refused = row_of(replace(SMALL, call="{'height': 7}"))
    assert (refused.verdict, refused.why) == (REFUSED, "the height must be divisible by 8")


def test_the_whole_question_is_passed_on(measured: list[tuple[Any, dict[str, Any], api.Target]]) -> None:
    row_of(replace(SMALL, call="{'height': 512}", reserve=1.0, limit="loss=exact"))
    assert measured == [("small", {"height": 512}, api.Target("a card", ram=32.0, reserve=1.0, limit="loss=exact"))]


# ---- the file --------------------------------------------------------------------------------------------------------
def test_the_file_keeps_rows(tmp_path: Path) -> None:
    rows = [row(), tight(), row(call="{'prompt': 'a, \"b\"\\n'}")]
    write(tmp_path / "rows.csv", Row, rows)
    assert read(Row, tmp_path / "rows.csv") == rows
    assert [file.name for file in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize("text", ["name,age\nAda,36\n", "model,gpu\n", "\x00\x01"])
def test_a_file_of_anything_else_is_not_written_over(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="name another file"):
        Matrix([SMALL], file)
    assert file.read_text(encoding="utf-8") == text


def test_a_run_that_is_cut_short_goes_on(tmp_path: Path, measured: list[Any]) -> None:
    asked = [replace(SMALL, ram=ram) for ram in (16.0, 32.0, 64.0)]
    first = Matrix(asked, tmp_path / "rows.csv")
    for _ in first.price():
        break
    assert [row.ram for row in read(Row, tmp_path / "rows.csv")] == [16.0]
    again = Matrix(asked, tmp_path / "rows.csv")
    assert (again.rows, again.missing) == (first.rows, asked[1:])
    assert [row.ram for row in again.price()] == [32.0, 64.0]
    assert again.rows == read(Row, tmp_path / "rows.csv")
    assert len(measured) == 3
    assert Matrix(asked, tmp_path / "rows.csv").missing == []


def test_what_another_version_has_priced_and_what_was_refused_is_done_again(tmp_path: Path) -> None:
    file, height = tmp_path / "rows.csv", "{'height': 7}"
    other = row("another", program="an older one")
    write(file, Row, [row(program="an older one"), other, row(call=height, verdict=REFUSED, why="the Hub was away")])
    found = Matrix([SMALL, replace(SMALL, call=height)], file)
    assert found.rows == []
    assert [row.verdict for row in found.price()] == [FITS, REFUSED]
    assert [row.verdict for row in found.rows] == [FITS, REFUSED]
    assert read(Row, file) == [*found.rows, other]


def test_the_version_is_that_of_the_sources(tmp_path: Path) -> None:
    assert {"pricing.py", "vae_tiling.py", "gpus.json"} <= {path.name for path in sources()}
    file = tmp_path / "a.py"
    file.write_text("1", encoding="utf-8")
    before = digest([file], "torch")
    assert digest([file], "other") != before == digest([file], "torch")
    file.write_text("2", encoding="utf-8")
    assert digest([file], "torch") != before


# ---- what is shown ---------------------------------------------------------------------------------------------------
def shown(rows: list[Row], width: int, *, everything: bool = False) -> str:
    before = WIDTH.set(width)
    try:
        return matrix(rows, everything=everything)
    finally:
        WIDTH.reset(before)


CARDS = ("NVIDIA GeForce RTX 4070", "NVIDIA GeForce RTX 4090", "AMD Radeon RX 7900 XTX", "Apple M3 Max 36 GB")
GRID = """\
32 GiB of host memory, balanced picks

         RTX 4070      RTX 4090
  one  1 min 03 s    1 min 03 s
         9.49 GiB      9.49 GiB
           slight        slight
  two  1 min 03 s  nothing fits
         9.49 GiB
           slight

Plans
  one on RTX 4070
    a plan
  one on RTX 4090
    a plan
  two on RTX 4070
    a plan

Without a plan
  two on RTX 4090: nothing fits. The nearest plan needs more.

"""


def test_the_grid() -> None:
    rows = [row(model, gpu) for model in ("one", "two") for gpu in CARDS[:2]]
    why = "The nearest plan needs more."
    none: dict[str, Any] = {
        "verdict": NOTHING_FITS,
        "plan": "",
        "seconds": None,
        "vram_gib": None,
        "loss": "",
        "why": why,
    }
    assert shown([*rows[:-1], replace(rows[-1], **none)], 100).startswith(GRID)


@pytest.mark.parametrize(("width", "blocks"), [(60, 2), (100, 1)])
def test_a_narrow_terminal_has_the_cards_below_one_another(width: int, blocks: int) -> None:
    rows = [row(model, gpu) for model in ("sd1.5", "wan2.2-t2v-a14b") for gpu in CARDS]
    text = shown(rows, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("1 min 03 s") == len(rows)
    assert len(re.findall(r"^  sd1\.5  ", text, re.MULTILINE)) == blocks
    assert all(text.count(short(card)) >= 1 for card in CARDS)


def test_plans_of_many_cases_are_shown_if_asked() -> None:
    rows = [row(f"model {n}") for n in range(13)]
    assert "--all shows the plans of all 13 cases" in shown(rows, 100)
    assert shown(rows, 100, everything=True).count("\n    a plan\n") == 13


def test_each_host_memory_has_a_grid() -> None:
    text = shown([row(ram=16.0), row(ram=32.0, prefer="speed")], 100)
    assert "16 GiB of host memory, balanced picks" in text
    assert "32 GiB of host memory, speed picks" in text
    assert "small on a card, 16 GiB" in text


def test_the_page_has_every_case_and_needs_no_network() -> None:
    rows = [row("<b>", gpu) for gpu in CARDS] + [tight()]
    text = page(rows)
    assert text.startswith("<!doctype html>")
    assert "<title>memplan: 2 models on 5 cards</title>" in text
    assert "<b>" not in text.replace("<b>1 min 03 s</b>", "").replace("<b>nothing fits</b>", "")
    assert text.count("<b>1 min 03 s</b>9.49 GiB<br>slight</a></td>") == 4
    assert re.findall(r'href="#(case-\d)"', text) == re.findall(r'id="(case-\d)"', text)
    assert not re.findall(r"<(?:link|img|iframe)\b|\ssrc=|https?://", text)
    assert len(text.encode()) < 20_000


def test_what_the_page_has_to_type_is_the_same_case(measured: list[tuple[Any, dict[str, Any], api.Target]]) -> None:
    asked = replace(SMALL, gpu="NVIDIA GeForce RTX 4070", call="{'height': 512, 'prompt': \"a 'cat'\"}", reserve=0.5)
    found = row_of(asked)
    assert '--gpu "NVIDIA GeForce RTX 4070"' in command(found)
    first, *words = shlex.split(command(found))
    assert first == "memplan"
    assert main(words) == 0
    assert measured[1] == measured[0]


@browser.needed
@pytest.mark.slow
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    file = tmp_path / "matrix.html"
    file.write_text(page([row(gpu=gpu) for gpu in CARDS]), encoding="utf-8")
    seen = browser.opened(file)
    assert seen.console == []
    assert 'data-theme="' in seen.dom
    assert seen.dom.count("<b>1 min 03 s</b>") == len(CARDS)


# ---- the verb --------------------------------------------------------------------------------------------------------
LINE = ["matrix", "--models", "sdxl", "--gpus", "4070", "RTX 2060", "--ram", "32", "--processes", "1"]


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str], measured: list[Any]) -> None:
    files = ["--csv", str(tmp_path / "rows.csv"), "--html", str(tmp_path / "page.html")]
    assert main([*LINE, *files]) == 0
    out, err = capsys.readouterr()
    rows = read(Row, tmp_path / "rows.csv")
    assert out == matrix(rows) + "\n"
    assert [row.verdict for row in rows] == [FITS, NOTHING_FITS]
    assert f"memplan: wrote {tmp_path / 'page.html'}" in err
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page(rows)
    assert main([*LINE, *files]) == 0
    assert capsys.readouterr().err.startswith(f"memplan: 2 of 2 cases are in {tmp_path / 'rows.csv'}\n")
    assert len(measured) == 2


def test_a_run_that_is_interrupted_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(case: Case) -> Row:
        if "2060" in case.gpu:
            raise KeyboardInterrupt
        return replace(row(), **asdict(case))

    monkeypatch.setattr(pricing, "row_of", found)
    assert main([*LINE, "--csv", str(tmp_path / "rows.csv")]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"memplan: 1 of 2 cases are in {tmp_path / 'rows.csv'}; the same command goes on from there\n"


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [((NOTHING_FITS, FITS), 0), ((REFUSED, FITS), 0), ((REFUSED, NOTHING_FITS), 3), ((REFUSED, REFUSED), 2)],
)
def test_exit_codes(verdicts: tuple[str, str], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter(verdicts)

    def found(case: Case) -> Row:
        return row(case.model, case.gpu, verdict=next(left))

    monkeypatch.setattr(pricing, "row_of", found)
    assert main(LINE) == code


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--processes", "0"], "--processes is 0: give 1 or more"),
        (["--csv", "nowhere/rows.csv"], "there is no folder"),
        (["--reserve", "99"], "a reserve of 99 GiB leaves nothing"),
        (["--height", "0"], "height is 0"),
        (["--gpus", "RTX 4071"], "Do you mean"),
    ],
)
def test_bad_input(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str], measured: list[Any]) -> None:
    assert main([*LINE, *words]) == 2
    assert sentence in capsys.readouterr().err
    assert measured == []
