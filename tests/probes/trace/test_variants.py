"""A call made another way is traced beside the plain one, to the byte, and leaves the settings as they were."""

from typing import Any
from unittest.mock import Mock

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, SlicedAttnProcessor, XFormersAttnProcessor
from torch import nn

from memplan.facts import IN_SLICES, SLICED, TILED
from memplan.probes.fakes.twin import live_twin
from memplan.probes.trace import dry_run
from memplan.probes.trace.calling import called
from memplan.probes.trace.variants import lacks
from tests.accuracy.measured import peak_of
from tests.pipelines import build, inputs
from tests.pipelines.images import unet
from tests.pipelines.parts import SIZES
from tests.probes.rooms import peak, room, visit
from tests.some import some

LATENTS = {"flux": (1, 4, 6, 12), "wan": (1, 16, 3, 6, 12), "cogvideox": (1, 4, 3, 6, 12)}
TILE = 64
TILES, SLICES = (TILED,), (SLICED,)
SMALL_TILES = (f"{TILED}:{TILE // 2}",)


def vae(family: str, size: str = "tiny") -> Any:
    """A VAE whose tiles are smaller than the picture of its latent."""
    part = build(family, size).vae
    for name in vars(part):
        if name.startswith("tile_sample_min"):
            setattr(part, name, TILE)
        elif name.startswith("tile_sample_stride"):
            setattr(part, name, TILE * 3 // 4)
        elif name.startswith("tile_latent_min"):
            setattr(part, name, TILE // 8)
    return part


def eager(part: Any) -> Any:
    """A U-Net whose attention holds its scores."""
    part.set_attn_processor(AttnProcessor())
    return part


def measured(part: Any, ways: tuple[str, ...], latent: torch.Tensor) -> int:
    """The peak of a real decode."""
    with called(part, ways), torch.no_grad():
        return peak_of(lambda: part.decode(latent))[1]


# ---- what they hold --------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("family", some(LATENTS, "flux"))
def test_a_decode_made_another_way_peaks_where_the_real_one_does(family: str) -> None:
    part, latent = vae(family, "medium"), torch.zeros(LATENTS[family])
    traced = visit(part, lambda fake: fake.decode(latent))
    for ways, recording in traced.others.items():
        assert peak(recording) == measured(part, ways, latent), ways
    assert peak(traced.others[TILES]) * 1.1 < peak(traced.recording)
    two = torch.cat([latent, latent])
    traced = visit(part, lambda fake: fake.decode(two))
    assert {TILES, SLICES, SLICES + TILES} <= traced.others.keys()
    for ways in traced.others.keys() - {SMALL_TILES}:  # on some processors oneDNN pads copies of so small images
        assert peak(traced.others[ways]) == pytest.approx(measured(part, ways, two), rel=0.005), ways


def test_square_tiles_come_in_half_the_size_as_well() -> None:
    traced = visit(vae("flux", "medium"), lambda fake: fake.decode(torch.zeros(LATENTS["flux"])))
    assert traced.others.keys() == {TILES, SMALL_TILES}
    assert peak(traced.others[SMALL_TILES]) < peak(traced.others[TILES])


def test_attention_in_slices_peaks_where_the_real_one_does() -> None:
    part = eager(unet(SIZES["medium"])).eval()
    given = (torch.zeros(2, 4, 64, 64), torch.tensor(7), torch.zeros(2, 20, SIZES["medium"].text))
    traced = visit(part, lambda fake: fake(*given))
    sliced = traced.others[(IN_SLICES,)]
    with called(part, (IN_SLICES,)), torch.no_grad():
        _, real = peak_of(lambda: part(*given))
    assert peak(sliced) == pytest.approx(real, rel=0.03)
    assert peak(sliced) < peak(traced.recording)


def test_fused_attention_is_not_sliced() -> None:
    given = (torch.zeros(1, 4, 16, 16), torch.tensor(7), torch.zeros(1, 20, SIZES["tiny"].text))
    assert not visit(unet(SIZES["tiny"]), lambda fake: fake(*given)).others


def test_one_picture_is_no_batch() -> None:
    assert SLICES not in visit(vae("flux"), lambda fake: fake.decode(torch.zeros(LATENTS["flux"]))).others


def test_only_pictures_come_in_tiles() -> None:
    seen = visit(vae("flux"), lambda fake: fake(torch.zeros(2, 3, 96, 96)))
    assert (seen.method, seen.others) == ("forward", {})


# ---- what they leave -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", some(LATENTS, "flux"))
def test_the_settings_are_as_before(family: str) -> None:
    with room(vae(family)) as inside:
        before = dict(vars(inside.part))
        inside.part.decode(torch.zeros(2, *LATENTS[family][1:]))
        after = dict(vars(inside.part))
    settings = {name: value for name, value in before.items() if "til" in name or "slic" in name}
    assert {name: after[name] for name in settings} == settings
    assert after.keys() >= before.keys()


def test_the_attention_is_as_before() -> None:
    part = unet(SIZES["tiny"])
    before = part.attn_processors
    with called(part, (IN_SLICES,)):
        assert {type(p) for p in part.attn_processors.values()} == {SlicedAttnProcessor}
    assert part.attn_processors == before


# ---- what cannot be --------------------------------------------------------------------------------------------------
class Plain(nn.Linear):
    """Decodes, and knows no tiles."""

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return latent + 1


class Refuses(Plain):
    """Says that it has tiles, and then that it has none."""

    use_tiling = False

    def enable_tiling(self) -> None:
        self.use_tiling = True
        raise NotImplementedError("no tiles")


class FailsInTiles(Plain):
    """Has tiles that are too small for its layers."""

    use_tiling = False

    def enable_tiling(self) -> None:
        self.use_tiling = True

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        if self.use_tiling:
            raise RuntimeError("Kernel size can't be greater than actual input size")
        return latent + 1


class Trips(FailsInTiles):
    """Fails in tiles as code fails that its author never ran."""

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return latent + 1 if not self.use_tiling else [latent][len(latent)]


@pytest.mark.parametrize(
    ("kind", "words"), [(Trips, "list index"), (Refuses, "no tiles"), (FailsInTiles, "Kernel size can't"), (Plain, "")]
)
def test_what_fails_is_no_way_to_decode(kind: type[Plain], words: str) -> None:
    with room(kind(1, 1), "vae") as inside:
        inside.part.decode(torch.zeros(4))
    (seen,) = inside.visits
    assert not seen.others
    assert peak(seen.recording) == 16
    assert inside.doors.failed.get(("vae", TILES), "").startswith(words)
    assert bool(inside.doors.failed) == bool(words)
    assert "use_tiling" not in vars(inside.part)


@pytest.mark.parametrize(("broken", "ways"), [((), {"encode", "decode"}), (("_tiled_encode", "tiled_encode"), set())])
def test_a_component_that_fails_once_in_tiles_has_no_tiles(
    broken: tuple[str, ...], ways: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = diffusers.FluxImg2ImgPipeline(**build("flux").components)
    for name in broken:
        failure = Mock(side_effect=RuntimeError("a kernel is larger than its input"))
        monkeypatch.setattr(type(pipe.vae), name, failure, raising=False)
    call = inputs("flux") | {"height": 64, "width": 64, "image": torch.zeros(1, 3, 64, 64)}
    trace = dry_run(live_twin(pipe), call)
    assert {call.method for call in trace.calls} >= {"encode", "decode"}
    assert {call.method for call in trace.alternatives} == ways
    assert trace.failure("vae", TILED) == ("a kernel is larger than its input" if broken else None)


def test_ways_that_fail_together_may_do_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = build("flux")
    whole, kind = type(pipe.vae)._decode, type(pipe.vae)

    def picky(self: Any, latent: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        assert not (self.use_slicing and self.use_tiling), "one at a time"
        return whole(self, latent, *args, **kwargs)

    monkeypatch.setattr(kind, "_decode", picky)
    pipe.vae = vae("flux")
    trace = dry_run(live_twin(pipe), inputs("flux") | {"height": 96, "width": 96, "num_images_per_prompt": 2})
    assert trace.ways("vae") >= {SLICED, TILED}
    assert trace.failure("vae", TILED) is trace.failure("vae", SLICED) is None
    assert trace.failure("vae", SLICED, TILED) == "one at a time"


def test_what_is_on_already_is_no_other_way() -> None:
    part = vae("flux")
    part.enable_tiling()
    part.enable_slicing()
    assert dict(lacks(part))["tiling"] == "tiling is on already"
    assert dict(lacks(part))["slicing"] == "slicing is on already"
    assert not visit(part, lambda fake: fake.decode(torch.zeros(2, *LATENTS["flux"][1:]))).others


def test_slices_take_the_place_of_the_librarys_own_attention_only() -> None:
    part = unet(SIZES["tiny"])
    assert "attention_slicing" not in dict(lacks(part))
    part.set_attention_slice("auto")
    assert dict(lacks(part))["attention_slicing"] == "its attention is in slices already"
    part.set_attn_processor(XFormersAttnProcessor())
    assert "XFormersAttnProcessor" in dict(lacks(part))["attention_slicing"]
    assert "AutoencoderKL" in dict(lacks(vae("flux")))["attention_slicing"]
