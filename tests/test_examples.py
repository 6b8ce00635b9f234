"""Each example runs as a reader would run it, and prints what it promises."""

import ast
import json
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from tests.pipelines import build, inputs
from tests.some import some

EXAMPLES = Path(__file__).parents[1] / "examples"
PRINTS = {
    "proof.py": ("transformer.forward", "everything on the device", "undone: 0, same picture", "Proved."),
    "plan_for_another_card.py": ("balanced: ", "quality: ", "of device memory", "pipe."),
    "loading.py": ("loaded under: ", "picture: (32, 32)", "undone: the pipeline is as from_pretrained() gives it"),
    "live_pipeline.py": ("applied: ", "on_demand:vae", "picture: (32, 32)", "undone: the pipeline is as it was"),
    "out_of_memory.py": ("without a guard: CUDA out of memory", "a picture: (128, 128)", "works in tiles: False"),
    "differentiable_sampling.py": ("brightness before", "\nbrighter"),
    "plugin_strategy.py": ("everything on the device", "everything_in_groups", "pipe.enable_group_offload("),
}
SAYS = {"out_of_memory.py": "trying that again with vae_"}
"""What an example has memplan say on stderr."""
HERE = ("loading.py", "out_of_memory.py")
"""Those that every run runs in its own process, which has imported what takes the most time."""
SERVED = {"space_app.py"}
"""What tests/ui opens in a browser instead."""


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PRINTS) | SERVED


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    some(PRINTS, "differentiable_sampling.py", "plan_for_another_card.py", "live_pipeline.py"),
)
def test_example_runs(name: str, tmp_path: Path) -> None:
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(EXAMPLES / name)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    assert SAYS.get(name, "") in found.stderr
    assert name in SAYS or not found.stderr
    for text in PRINTS[name]:
        assert text in found.stdout


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of the test's own; what an example silences speaks again after."""
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path))
    yield
    logging.disable(logging.NOTSET)
    diffusers.utils.logging.enable_progress_bar()


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("name", HERE)
def test_example_runs_in_this_process(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    out, err = capsys.readouterr()
    assert SAYS.get(name, "") in err
    for text in PRINTS[name]:
        assert text in out


# ---- the notebook ----------------------------------------------------------------------------------------------------
def cells(*, slow: bool) -> list[str]:
    """The code of the notebook, with or without the cells that are tagged as slow."""
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code), "kept without outputs"
    return ["".join(cell["source"]) for cell in code if slow or "slow" not in cell["metadata"].get("tags", ())]


def shown(cell: str, names: dict[str, Any]) -> str:
    """What a notebook shows below the cell: the last expression, as HTML; "" where that gives nothing."""
    body = ast.parse(cell).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    value: Any = (
        eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None
    )
    return value._repr_html_() if hasattr(value, "_repr_html_") else ""


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.wide)])
def test_the_notebook_runs_and_shows_its_tables(slow: bool, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    tables = [shown(cell, names) for cell in cells(slow=slow)]
    captions = ["sd1.5", "everything on the GPU: ", "model_offload: ", "", *(["sd1.5", ""] if slow else [])]
    for table, caption in zip(tables, captions, strict=True):
        assert table.startswith("<table>") if caption else not table
        assert caption in table.partition("</caption>")[0]
    out = capsys.readouterr().out
    assert "RTX 4090: " in out
    assert ("pipe." in out) == slow


def loaded(name: str) -> dict[str, Any]:
    """The names that an example defines, without running it."""
    return runpy.run_path(str(EXAMPLES / name), run_name="example")


@pytest.mark.parametrize("family", ["flux", "wan"])
def test_the_plugin_runs_and_its_code_does_the_same(family: str) -> None:
    strategy = loaded("plugin_strategy.py")["EverythingInGroups"]
    pipe, typed = build(family), build(family)
    names = tuple(name for name, part in pipe.components.items() if isinstance(part, torch.nn.Module))
    expected = pipe(**inputs(family))[0]
    undo = strategy(names).apply(pipe, "cpu")
    exec("\n".join(strategy(names).code("cpu")), {"pipe": typed})
    assert torch.equal(pipe(**inputs(family))[0], expected)
    assert torch.equal(typed(**inputs(family))[0], expected)
    undo()
    assert torch.equal(pipe(**inputs(family))[0], expected)


def test_a_proof_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    proof = loaded("proof.py")
    namespace = proof["prove_peaks"].__globals__
    monkeypatch.setitem(namespace, "measured_peaks", lambda pipe: (torch.zeros(1), dict.fromkeys(proof["DOORS"], 1000)))
    monkeypatch.setitem(namespace, "predicted_peaks", lambda trace: dict.fromkeys(proof["DOORS"], 1011))
    assert proof["prove_peaks"](None, None)[1] is False
    monkeypatch.setitem(namespace, "predicted_peaks", lambda trace: dict.fromkeys(proof["DOORS"], 1009))
    assert proof["prove_peaks"](None, None)[1] is True
    assert "+0.9000%" in capsys.readouterr().out
