from dataclasses import replace
from math import hypot, sqrt

import pytest
import torch

from memplan.run import Run, Stored
from memplan.simulator import simulate
from memplan.simulator.formats import CASTS, FORMATS
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


@pytest.mark.parametrize(
    ("way", "tiles", "word"), [("tiled", 1, NEAR), ("tiled:16", 2, NEAR), ("frames:8", 1, NEAR), ("sliced", 0, "exact")]
)
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


def test_measured_errors_stand_in_for_the_usual_ones() -> None:
    facts = facts_of(build("flux"))
    part = facts.model.component("transformer")
    numbers = part.matrices()
    errors = tuple(0.01 * (i % 3) for i in range(len(numbers)))
    known = replace(part, errors=(("nf4", errors), ("int8 dynamic", errors)))
    model = replace(facts.model, components=tuple(known if c is part else c for c in facts.model.components))
    run, every = Run(replace(facts, model=model)), sum(c.numel for c in facts.model.components)
    weighed = [(e, part.weights[i].numel) for e, i in zip(errors, numbers, strict=True)]
    assert simulate(run.store("transformer", Stored("nf4"))).loss.error == pytest.approx(
        sum(e * n for e, n in weighed) / every
    )
    inputs = sqrt(FORMATS["int8 dynamic"].error ** 2 - FORMATS["int8"].error ** 2)
    assert simulate(run.store("transformer", Stored("int8 dynamic"))).loss.error == pytest.approx(
        sum(hypot(e, inputs) * n for e, n in weighed) / every
    )
