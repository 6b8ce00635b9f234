"""Each example runs as a reader would run it, and prints what it promises."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipelines import build, inputs
from tests.some import some

EXAMPLES = Path(__file__).parents[1] / "examples"
PRINTS = {
    "proof.py": ("transformer.forward", "everything on the device", "undone: 0, same picture", "Proved."),
    "plan_for_another_card.py": ("balanced: ", "quality: ", "of device memory", "pipe."),
    "live_pipeline.py": ("applied: ", "on_demand:vae", "picture: (32, 32)", "undone: the pipeline is as it was"),
    "differentiable_sampling.py": ("brightness before", "\nbrighter"),
    "plugin_strategy.py": ("everything on the device", "everything_in_groups", "pipe.enable_group_offload("),
}
SERVED = {"space_app.py"}
"""What tests/ui opens in a browser instead."""


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PRINTS) | SERVED


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    some(PRINTS, "differentiable_sampling.py", "plan_for_another_card.py", "live_pipeline.py", "plugin_strategy.py"),
)
def test_example_runs(name: str, tmp_path: Path) -> None:
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(EXAMPLES / name)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    assert not found.stderr
    for text in PRINTS[name]:
        assert text in found.stdout


def loaded(name: str) -> dict[str, Any]:
    """The names that an example defines, without running it."""
    import runpy

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
