"""Every family runs when tiny, is the same twice, and runs when medium."""

import pytest
import torch

from tests.pipelines import EVERY_FAMILY, build, inputs


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_tiny_runs_and_repeats(family: str) -> None:
    first, again = (build(family)(**inputs(family))[0] for _ in range(2))
    assert torch.isfinite(first).all()
    assert torch.equal(first, again)


@pytest.mark.slow
@pytest.mark.wide  # tests/accuracy/test_cpu.py runs those that stand for them
@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_medium_runs(family: str) -> None:
    assert torch.isfinite(build(family, "medium")(**inputs(family, "medium"))[0]).all()


def test_some_modules_stay_in_float32() -> None:
    wan = build("wan", dtype=torch.bfloat16)
    assert wan.transformer.proj_out.weight.dtype == torch.bfloat16
    assert wan.transformer.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
