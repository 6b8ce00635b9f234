"""On a made-up pipeline: contenders are named and priced, the chart goes where its sizes send it, the page is right."""

from dataclasses import replace
from pathlib import Path

import pytest

from memplan.errors import BadInput
from memplan.faces.api import named
from memplan.faces.matrix.file import read, write
from memplan.facts import GIB, Facts
from memplan.strategies import ModelOffload, OnGpu
from tests.comparison import __main__ as command
from tests.comparison import chart
from tests.comparison import rows as rows_module
from tests.comparison.contenders import CONTENDERS, MEANINGS, QUALITY, SPEED
from tests.comparison.page import beaten, page, table
from tests.comparison.parts import activations, cast, castable, heavy, plain, shrunk
from tests.comparison.rows import Case, Row, compared, program
from tests.faces import small

CASE = Case("small", "a card", 32.0)
A = 2.0
"""GiB of activations of the small pipeline: its decode."""


def facts(vram: float, ram: float) -> Facts:
    """The made-up pipeline, its weights being those of linear layers, on a machine with every package."""
    found = small.facts(vram, ram)
    machine = replace(found.machine, packages=command.PACKAGES)
    parts = tuple(
        replace(part, weights=tuple(replace(weight, columns=1024) for weight in part.weights))
        for part in found.model.components
    )
    return replace(found, machine=machine, model=replace(found.model, components=parts))


def row(contender: str, seconds: float, **others: object) -> Row:
    usual = Row("small", "a card", 32.0, contender, "a plan", seconds, 4, 4, True, True, "exact", 0.0, 0, "", "x")
    return replace(usual, **others)  # type: ignore[arg-type]


# ---- the chart -------------------------------------------------------------------------------------------------------
def test_its_sizes_are_those_of_the_model() -> None:
    measured = facts(8, 32)
    assert activations(measured) == A * GIB
    assert (plain(measured).total, plain(measured).largest) == (6.75 * GIB, 4.5 * GIB)
    assert castable(measured) == ("text_encoder", "transformer")
    assert (cast(measured).total, cast(measured).largest) == (3.5 * GIB, 2.25 * GIB)
    assert heavy(measured) == ("transformer", "text_encoder")
    assert (shrunk(measured, 0.25).total, shrunk(measured, 0.5).largest) == (1.875 * GIB, 2.25 * GIB)


CASTING = "layerwise_casting:text_encoder + layerwise_casting:transformer"
STREAMED = "group_offload:text_encoder,stream=true + group_offload:transformer,stream=true"
NF4 = "bnb_4bit:transformer,text_encoder"


@pytest.mark.parametrize(
    ("vram", "ram", "plan"),
    [
        (A + 6.75, 32, "everything on the GPU"),
        (A + 6.7, 32, CASTING),
        (A + 4.5, 32, CASTING),
        (A + 3.4, 32, f"{CASTING} + model_offload"),
        (A + 2.2, 21, STREAMED),
        (A + 2.2, 20, STREAMED.replace("true", "true,low_cpu_mem=true")),
        (A + 2.2, 6, NF4),
        (A + 1.2, 6, f"{NF4} + model_offload"),
    ],
)
def test_the_chart_goes_where_its_sizes_send_it(vram: float, ram: float, plan: str) -> None:
    assert chart.offloading(facts(vram, ram)) == plan


def test_the_chart_prefers_model_offload_to_casting_what_is_too_large() -> None:
    found = facts(A + 4.6, 32)
    parts = tuple(replace(part, cast=()) for part in found.model.components)
    assert chart.offloading(replace(found, model=replace(found.model, components=parts))) == "model_offload"


@pytest.mark.parametrize(
    ("vram", "ram", "plan"),
    [
        (A + 3.5, 32, "int8_weight_only:transformer,text_encoder"),
        (A + 3.4, 32, NF4),
        (A + 1.8, 32, f"{NF4} + model_offload"),
    ],
)
def test_the_path_of_quantization_moves_as_little_as_it_can(vram: float, ram: float, plan: str) -> None:
    assert chart.quantizing(facts(vram, ram)) == plan


@pytest.mark.parametrize(("vram", "ram", "why"), [(A + 1, 6, "in 4 bits"), (A + 2.2, 4, "largest component")])
def test_the_chart_may_end_without_a_plan(vram: float, ram: float, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        chart.offloading(facts(vram, ram))


# ---- rows ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def priced() -> list[Row]:
    return compared(CASE, facts(8, 32))


def test_every_contender_is_priced_as_memplan_prices_its_plan(priced: list[Row]) -> None:
    measured = facts(8, 32)
    found = {row.contender: row for row in priced}
    assert found.keys() == {SPEED, QUALITY, *CONTENDERS} == {SPEED, *MEANINGS}
    offload = named(measured, ["model_offload"]).bill
    assert found["model offload"].seconds == round(offload.seconds, 3)
    assert found["model offload"].vram_gib == round(offload.peak.memory.required / GIB, 3)
    assert found["all on the GPU"].vram_gib > 8
    assert not found["all on the GPU"].fits
    assert found["model offload"].fits
    assert (found["nf4, model offload"].loss, found["sequential offload"].loss) == ("visible", "exact")
    assert found[SPEED].fits
    assert not list(beaten(list(found.values())))


def test_what_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "strategies", lambda: (OnGpu, ModelOffload))
    found = {row.contender: row for row in compared(CASE, facts(0.5, 0.5))}
    assert "nothing fits" in found[SPEED].refused
    assert "no plan" in found["skill's chart"].refused
    assert not any(row.fits for row in found.values())


def test_the_file_keeps_the_rows(tmp_path: Path, priced: list[Row]) -> None:
    assert read(Row, tmp_path / "none.csv") == []
    write(tmp_path / "rows.csv", Row, priced)
    assert read(Row, tmp_path / "rows.csv") == priced
    assert {row.program for row in priced} == {program()}


def test_a_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Case] = []

    def rows_of(case: Case) -> list[Row]:
        done.append(case)
        return [row(SPEED, 1.0, model=case.model)]

    monkeypatch.setattr(command, "rows_of", rows_of)
    cases = [Case("one", "a card", 32.0), Case("two", "a card", 32.0)]
    rows = [row(SPEED, 1.0, model="one")]
    (said,) = command.priced(cases, rows, tmp_path / "rows.csv")
    assert done == cases[1:]
    assert said.startswith("1 of 1, ")
    assert [kept.model for kept in read(Row, tmp_path / "rows.csv")] == ["one", "two"]


# ---- the page --------------------------------------------------------------------------------------------------------
def test_the_page_says_that_it_predicts_and_what_it_is_of(priced: list[Row]) -> None:
    text = page(priced, command.part([CASE]))
    assert "Nothing on this page was measured" in text
    assert "This page is a part: 1 of the 240 cases" in text
    assert "## a card, 32 GiB of host memory" in text
    assert all(f"| {name} |" in text for name in (SPEED, *MEANINGS))


def test_ratios_count_where_both_fit() -> None:
    rows = [
        row(SPEED, 10, error=0.02, loss="slight"), row(QUALITY, 20), row("b", 40),
        row(SPEED, 10, model="m"), row(QUALITY, 10, model="m"), row("b", 60, model="m", tiles=1),
        row(SPEED, 10, model="n"), row(QUALITY, 10, model="n"), row("b", 5, model="n", fits=False),
    ]  # fmt: skip
    line = next(line for line in table(rows) if line.startswith("| b |"))
    assert line == "| b | 2 of 3 | 0 | 5.00 | 6.00 (m) | 4.00 | 1 | 1 |"


@pytest.mark.parametrize(
    ("other", "found", "why"),
    [
        ({"seconds": 9.0}, 1, ""),
        ({"seconds": 9.8}, 1, "within the 5%"),
        ({"seconds": 5.0, "spare": False}, 1, "less than 2 %"),
        ({"seconds": 9.0, "error": 0.01}, 0, ""),
        ({"seconds": 9.0, "tiles": 1}, 0, ""),
        ({"seconds": 9.0, "fits": False}, 0, ""),
        ({"seconds": 11.0}, 0, ""),
    ],
)
def test_a_contender_that_is_faster_and_loses_no_more_is_named(other: dict[str, float], found: int, why: str) -> None:
    rows = [row(SPEED, 10.0), row(QUALITY, 10.0), row("b", **other)]
    cases = list(beaten(rows))
    assert len(cases) == found
    assert all(why in case.why and bool(why) == bool(case.why) for case in cases)
    assert f"faster: {found}, of which {sum(not case.why for case in cases)} are" in " ".join(page(rows).split())


def test_a_contender_that_fits_where_memplan_finds_nothing_is_named() -> None:
    (case,) = beaten([row(SPEED, 0.0, fits=False), row("b", 9.0, error=0.5)])
    assert "memplan finds no plan that fits. Not explained." in str(case)


def test_the_page_of_the_repository_follows_from_its_rows() -> None:
    rows = read(Row, command.HERE / "comparison.csv")
    text = (command.HERE / "comparison.md").read_text(encoding="utf-8")
    assert page(rows, command.part(list(dict.fromkeys(row.case for row in rows)))) == text
