"""What only tiling knows: whom it refuses and in which words, which settings its way back restores, what it costs."""

from dataclasses import replace

import pytest
import torch

from memplan import planner
from memplan.errors import BadInput
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from memplan.registry import switches
from memplan.run import Run
from memplan.strategies import VaeTiling
from tests.measured_facts import facts_of
from tests.pipelines import build, inputs


@pytest.mark.parametrize(
    ("ways", "strategy", "sentence"),
    [
        ([], VaeTiling(), "no more than one at a time"),
        ([("tiled:16",)], VaeTiling(), "own size change nothing at this size: vae_tiling:tile=16 would do"),
        (
            [("tiled",), ("tiled:16",)],
            VaeTiling(tile=8),
            "where a plan names it: vae_tiling and vae_tiling:tile=16 would do",
        ),
        ([("sliced",)], VaeTiling(tile=16), "tiles of 16 pixels change nothing at this size, or need a dry run"),
        ([("tiled",)], VaeTiling("transformer"), "no decode()"),
    ],
)
def test_refuses(ways: list[tuple[str, ...]], strategy: VaeTiling, sentence: str) -> None:
    facts = facts_of(build("flux"), ways={"vae": ways})
    assert sentence in (strategy.refuses(Run(facts)) or "")
    assert strategy not in list(VaeTiling.variants(facts))


def test_refuses_a_vae_that_is_not_called() -> None:
    facts = facts_of(build("flux"), ways={})
    calls = tuple(call for call in facts.trace.calls if call.component != "vae")
    assert VaeTiling().refuses(Run(replace(facts, trace=replace(facts.trace, calls=calls)))) == "vae is not called"


def test_refuses_tiles_that_fail_in_the_words_of_the_error() -> None:
    facts = facts_of(build("flux"), ways={})
    failed = replace(facts, trace=replace(facts.trace, failed=(("vae", "tiled", "a kernel is too large"),)))
    assert VaeTiling().refuses(Run(failed)) == "vae fails in tiles of this size: a kernel is too large"


def test_refuses_where_tiles_are_on() -> None:
    pipe = build("flux")
    pipe.vae.enable_tiling()
    assert VaeTiling().refuses(Run(facts_of(pipe, ways={}))) == "tiling is on already"


@pytest.mark.parametrize("tile", [0, 16])
def test_tiling_that_was_on_stays_on(tile: int) -> None:
    pipe = build("flux")
    pipe.vae.enable_tiling()
    pipe.vae.tile_latent_min_size = 8
    VaeTiling(tile=tile).apply(pipe, "cpu")()
    assert pipe.vae.use_tiling
    assert (pipe.vae.tile_latent_min_size, pipe.vae.tile_sample_min_size) == (8, 32)


def test_tiles_that_would_not_meet_are_refused_and_nothing_is_changed() -> None:
    pipe = build("flux")
    with pytest.raises(BadInput, match="tiles of AutoencoderKL come in multiples of 8 pixels, by which they meet; 12"):
        VaeTiling(tile=12).apply(pipe, "cpu")
    assert not pipe.vae.use_tiling


@pytest.mark.slow
def test_a_size_that_is_named_is_dry_run() -> None:
    """Also one that is larger than the library's own, which loses no more; a plan that names none asks for nothing."""
    assert not switches(["vae_tiling"])
    asked = switches(["vae_tiling:tile=64", "vae_tiling:tile=12"])
    trace = dry_run(open_pipeline(build("flux")), inputs("flux") | {"height": 128, "width": 128}, switches=asked)
    decode = next(c for c in trace.calls if c.method == "decode")
    assert 0 < trace.held("vae", "tiled") < trace.held("vae", "tiled:64") < decode.activations
    facts = replace(facts_of(build("flux")), trace=trace)
    larger, refused = VaeTiling(tile=64), VaeTiling(tile=12)
    assert planner.seated(facts, [larger]).bill.loss.tiles == 1
    assert refused.refuses(Run(facts)) == (
        "vae fails in tiles of this size: tiles of AutoencoderKL come in multiples of 8 pixels, by which they meet; "
        "12 is none"
    )


def test_a_picture_of_tiles_is_another_picture() -> None:
    """Which is why a plan with tiles is never called exact."""
    pipe, latent = build("flux"), torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = pipe.vae.decode(latent).sample
        VaeTiling().apply(pipe, "cpu")
        tiles = pipe.vae.decode(latent).sample
    assert tiles.shape == whole.shape
    assert float((tiles - whole).square().mean().sqrt() / whole.std()) > 0.01
