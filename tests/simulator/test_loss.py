import pytest
import torch

from memplan.run import Run, Stored
from memplan.simulator import simulate
from memplan.simulator.formats import CASTS
from memplan.simulator.loss import DTYPES
from tests.measured_facts import facts_of
from tests.pipelines import build

NEAR = "near-lossless"


ERRORS = {**CASTS, **DTYPES}


@pytest.mark.parametrize("dtype", ERRORS)
def test_weight_error_is_that_of_gaussian_weights(dtype: str) -> None:
    weights = torch.randn(1_000_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stored = weights.to(getattr(torch, dtype)).double()
    error = ((stored - weights).square().mean() / weights.square().mean()).sqrt()
    assert float(error) == pytest.approx(ERRORS[dtype], rel=0.01)


def test_a_run_as_loaded_is_exact() -> None:
    loss = simulate(Run(facts_of(build("flux")))).loss
    assert (loss.error, loss.tiles, loss.word) == (0.0, 0, "exact")


@pytest.mark.parametrize(("way", "tiles", "word"), [("tiled", 1, NEAR), ("tiled:16", 2, NEAR), ("sliced", 0, "exact")])
def test_tiles_are_not_exact_and_slices_are(way: str, tiles: int, word: str) -> None:
    run = Run(facts_of(build("flux"))).vary("vae", way)
    loss = simulate(run).loss
    assert (loss.error, loss.tiles, loss.word) == (0.0, tiles, word)
    assert simulate(run.store("transformer", Stored("float8_e4m3fn"))).loss.word != "exact"


def test_loss_counts_the_weights_that_are_cast() -> None:
    facts = facts_of(build("flux"))
    run = Run(facts).store("transformer", Stored("float8_e4m3fn"))
    transformer = facts.model.component("transformer")
    cast = sum(transformer.weights[i].numel for i in transformer.cast)
    everything = sum(w.numel for c in facts.model.components for w in c.weights)
    assert 0 < cast < everything
    assert simulate(run).loss.error == pytest.approx(CASTS["float8_e4m3fn"] * cast / everything)
