"""What only slicing knows: whom it refuses and in which words, and what it does to the pictures."""

from dataclasses import replace

import pytest
import torch

from memplan.run import Run
from memplan.strategies import VaeSlicing
from tests.measured_facts import facts_of
from tests.pipelines import build


def test_refuses_a_single_picture() -> None:
    facts = facts_of(build("flux"), ways={"vae": [("tiled",)]})
    assert "no more than one picture" in (VaeSlicing().refuses(Run(facts)) or "")
    assert not list(VaeSlicing.variants(facts))


def test_refuses_slices_that_fail_in_the_words_of_the_error() -> None:
    facts = facts_of(build("flux"), ways={})
    failed = replace(facts, trace=replace(facts.trace, failed=(("vae", "sliced", "no such slice"),)))
    assert VaeSlicing().refuses(Run(failed)) == "vae fails slice by slice: no such slice"


def test_refuses_where_slices_are_on() -> None:
    pipe = build("flux")
    pipe.vae.enable_slicing()
    assert VaeSlicing().refuses(Run(facts_of(pipe, ways={}))) == "slicing is on already"


@pytest.mark.parametrize("family", ["flux", "wan", "cogvideox", "ltx"])
def test_slices_change_no_more_than_the_rounding(family: str) -> None:
    """Not bit by bit: a kernel may add up in another order for one picture than for several."""
    pipe = build(family)
    channels = pipe.vae.config.get("latent_channels") or pipe.vae.config["z_dim"]
    shape = (3, channels, 8, 8) if family == "flux" else (3, channels, 3, 4, 4)
    latent = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = pipe.vae.decode(latent).sample
        VaeSlicing().apply(pipe, "cpu")
        alone = pipe.vae.decode(latent).sample
    assert float((alone - together).abs().max() / together.std()) < 1e-4
