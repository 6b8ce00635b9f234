"""The pages of strategies are what the code says now; refusals are read as they are written."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from memplan.run import Run
from memplan.strategies import STRATEGIES, GroupOffload, OnGpu, Quanto, VaeTiling
from memplan.strategy import Strategy
from tests.faces import small
from tests.pages import proof
from tests.pages.page import FOLDER, page, pages
from tests.pages.refusals import refusals

REWRITE = "run `python -m tests.pages` and read what changed"


def test_every_page_is_up_to_date() -> None:
    found = pages()
    assert set(FOLDER.iterdir()) == set(found), REWRITE
    for path, text in found.items():
        assert path.read_text(encoding="utf-8") == text, REWRITE


@pytest.mark.parametrize("cls", STRATEGIES, ids=lambda cls: cls.name)
def test_links_lead_somewhere(cls: type[Strategy]) -> None:
    links = [word.partition(")")[0] for word in page(cls).split("](")[1:]]
    assert links
    for link in links:
        file, _, anchor = link.partition("#")
        text = (FOLDER / file).resolve().read_text(encoding="utf-8")
        titles = (line[4:] for line in text.splitlines() if line.startswith("### "))
        assert not anchor or anchor in {title.replace("+", "").replace(" ", "-") for title in titles}


def test_sentences_are_those_that_a_run_gives() -> None:
    """What a strategy says of a real refusal is on its page, but for what the run fills in."""
    run = Run(small.facts())
    for strategy, start, end in (
        (GroupOffload("transformer", "block_level", 3), "{class name} does not split that way: ", ""),
        (GroupOffload("transformer", low_cpu_mem=True), "low_cpu_mem and record_stream say", "add stream=true"),
        (VaeTiling("vae", 64), "tiles of {tile} pixels change nothing at this size", "where a plan names it"),
    ):
        said = strategy.refuses(run)
        assert said
        (sentence,) = (s for s in refusals(type(strategy))[0] if s.startswith(start) and end in s)
        words = [word for part in sentence.split("{") for word in part.rpartition("}")[2].split("…")]
        assert all(word in said for word in words), (said, words)


def test_refusals_are_followed_into_parents_and_shared_rules() -> None:
    sentences, passes_on = refusals(Quanto)
    assert passes_on
    assert "weights is int8, float8 or int4, not {weights}" in sentences, "its own"
    assert "quanto would spare every linear layer of {class name}" in sentences, "of what all quantizers share"
    assert "quanto stores weights in float8_e4m3fn, which torch does not have on {gpu}" in sentences, "of a rule"
    assert refusals(OnGpu) == ([], False)


@dataclass(frozen=True)
class Unmeasured(VaeTiling):
    """A strategy that no row has."""

    name: ClassVar[str] = "unmeasured"


def test_where_nothing_was_measured_it_is_said() -> None:
    assert proof.memory(Unmeasured) == []
    assert proof.seconds(Unmeasured) == ""
    assert "No published figure" in page(Unmeasured)
    assert "No published figure" not in page(VaeTiling)


def test_figures_are_those_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (
        "| S1 | a card | m + vae_tiling:vae,tile=64 + compile | 2.0 | 1.0 | -50.0% |",
        "| S2 | a card | m + vae_tiling | 1.0 | 1.1 | +10.0% |",
        "| S3 | a card | m + vae_tiling_not | 1.0 | 9.0 | +800.0% |",
    )
    monkeypatch.setattr(proof, "ROOT", tmp_path)
    monkeypatch.setattr(proof, "SECONDS", tmp_path / "SECONDS.md")
    (tmp_path / "SECONDS.md").write_text("\n".join(rows))
    found = "[2 published latencies](../../SECONDS.md): median error 30.0 %, worst -50.0 % (S1)"
    assert proof.seconds(VaeTiling) == found
