"""The README says what the code does: its output, its tables, its tree and its snippets."""

import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.run import Run
from memplan.simulator import simulate
from memplan.strategy import Decision, Seat
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs
from tests.readme import README, SECTIONS, branches, opening, section

REFILL = "run `python -m tests.readme {}` and read what changed"
QUICK = ("accuracy", "strategies", "tree")


@pytest.mark.parametrize("name", QUICK)
def test_section_is_up_to_date(name: str) -> None:
    assert section(name) == SECTIONS[name](), REFILL.format(name)


@pytest.mark.slow
def test_the_output_is_real() -> None:
    assert section("recommend") == SECTIONS["recommend"](), REFILL.format("recommend")


def test_the_accuracy_section_holds_the_worst_case() -> None:
    lines = section("accuracy").splitlines()
    assert any(line.startswith("- quality A, allocated: n ") and "worst" in line for line in lines)
    assert any(line.startswith("- the worst of known metric: S") for line in lines)
    assert sum(line.startswith("| ") for line in lines) > 10


# ---- snippets --------------------------------------------------------------------------------------------------------
def snippets(language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def plugin() -> Any:
    """The strategy that the README shows."""
    (code,) = (code for code in snippets() if "class " in code)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(code, names)
    return names["EncoderInLayers"]


def test_the_strategy_is_drawn_and_priced(plugin: Any) -> None:
    pipe = build("flux")
    run = Run(replace(facts_of(pipe), trace=dry_run(open_pipeline(pipe), inputs("flux"))))
    found = list(plugin.variants(run.facts))
    assert [strategy.component for strategy in found] == ["text_encoder", "text_encoder_2"]
    for strategy in found:
        assert strategy.refuses(run) is None
        drawn = strategy.redraw(run)
        assert drawn == strategy.redraw(run)
        assert strategy.seats == {Seat(Decision.PLACEMENT, strategy.component)}
        assert simulate(drawn).traffic.link > simulate(run).traffic.link == 0
        assert simulate(drawn).host.steady > simulate(run).host.steady


def test_the_strategy_is_applied_and_undone_and_its_code_does_the_same(plugin: Any) -> None:
    pipe, typed = build("flux"), build("flux")
    expected = pipe(**inputs("flux"))[0]
    for strategy in plugin.variants(facts_of(pipe, kind="cpu")):
        undo = strategy.apply(pipe, "cpu")
        exec("\n".join(strategy.code("cpu")), {"pipe": typed})
        assert torch.equal(pipe(**inputs("flux"))[0], expected)
        assert torch.equal(typed(**inputs("flux"))[0], expected)
        undo()
        assert not any(hasattr(module, "_diffusers_hook") for module in getattr(pipe, strategy.component).modules())


def test_the_python_use_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import memplan

    doubles = {"recommend": Mock(), "auto_optimize": Mock(), "load": Mock()}
    doubles["recommend"].return_value.pick.return_value = "a plan"
    for name, double in doubles.items():
        inspect.signature(getattr(memplan, name)).bind("a pipeline", target=memplan.Target())
        monkeypatch.setattr(memplan, name, double, raising=False)
    (code,) = (code for code in snippets() if "auto_optimize" in code)
    pipe = Mock()
    exec(code, {"pipe": pipe})
    assert capsys.readouterr().out == "a plan\n"
    assert pipe.call_args.kwargs.items() <= doubles["auto_optimize"].call_args.kwargs.items()
    doubles["auto_optimize"].return_value.undo.assert_called_once_with()


# ---- the tool --------------------------------------------------------------------------------------------------------
def test_branches_open_each_folder_once() -> None:
    rows = [("a/b/c.py", "one"), ("a/b/d.py", "two"), ("a/e/", "three"), ("f/g", "")]
    assert list(branches(rows)) == ["a/", "  b/", "    c.py  one", "    d.py  two", "  e/      three", "f/", "  g"]


def test_opening_of_a_long_sentence_ends_at_a_colon(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""Short: as it is. More."""\n', encoding="utf-8")
    assert opening(module) == "Short: as it is"
    module.write_text(f'"""Long: {"very " * 20}so.\n"""\n', encoding="utf-8")
    assert opening(module) == "Long"
