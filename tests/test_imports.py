"""`import memplan` is quick: it loads none of the heavy libraries."""

import subprocess
import sys

import pytest

HEAVY = {"accelerate", "diffusers", "numpy", "torch", "transformers"}


@pytest.mark.parametrize("module", ["memplan", "memplan.strategies", "memplan.__main__"])
def test_import_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    loaded = set(found.stdout.split())
    assert module in loaded
    assert not HEAVY & loaded
