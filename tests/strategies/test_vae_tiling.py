"""What only tiling knows: whom it refuses, and which settings its way back restores."""

from memplan.run import Run
from memplan.strategies import VaeTiling
from tests.measured_facts import facts_of
from tests.pipelines import build


def test_refuses_a_picture_of_one_tile() -> None:
    facts = facts_of(build("flux"), tiles=False)
    assert "changes nothing at this size" in (VaeTiling().refuses(Run(facts)) or "")
    assert not list(VaeTiling.variants(facts))


def test_refuses_what_has_no_tiles() -> None:
    assert "no decode()" in (VaeTiling("transformer").refuses(Run(facts_of(build("flux")))) or "")


def test_tiling_that_was_on_stays_on() -> None:
    pipe = build("flux")
    pipe.vae.enable_tiling()
    pipe.vae.tile_latent_min_size = 7
    VaeTiling().apply(pipe, "cpu")()
    assert pipe.vae.use_tiling
    assert pipe.vae.tile_latent_min_size == 7
