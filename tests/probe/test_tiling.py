"""A decode in tiles is traced beside the plain one, to the byte, and leaves the settings as they were."""

from typing import Any
from unittest.mock import Mock

import diffusers
import pytest
import torch
from torch import nn

from memplan.probe.tiling import tiling
from memplan.probe.trace import dry_run
from memplan.probe.twin import live_twin
from tests.accuracy.measured import peak_of
from tests.pipelines import build, inputs
from tests.probe.rooms import peak, room, visit

LATENTS = {"flux": (1, 4, 6, 12), "wan": (1, 16, 3, 6, 12), "cogvideox": (1, 4, 3, 6, 12)}
TILE = 64


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


@pytest.mark.slow
@pytest.mark.parametrize("family", LATENTS)
def test_a_decode_in_tiles_peaks_where_the_real_one_does(family: str) -> None:
    part, latent = vae(family, "medium"), torch.zeros(LATENTS[family])
    traced = visit(part, lambda fake: fake.decode(latent))
    part.enable_tiling()
    with torch.no_grad():
        _, measured = peak_of(lambda: part.decode(latent))
    assert peak(traced.tiled) == measured
    assert peak(traced.recording) > measured * 1.1


@pytest.mark.parametrize("family", LATENTS)
def test_the_settings_are_as_before(family: str) -> None:
    with room(vae(family)) as inside:
        before = dict(vars(inside.part))
        inside.part.decode(torch.zeros(LATENTS[family]))
        after = dict(vars(inside.part))
    settings = {name: value for name, value in before.items() if "til" in name}
    assert {name: after[name] for name in settings} == settings
    assert after.keys() >= before.keys()
    assert not inside.part.use_tiling


def test_nothing_is_switched_on_where_there_is_nothing_to_switch() -> None:
    part = vae("flux")
    with tiling(part) as on:
        assert on
        assert part.use_tiling
        with tiling(part) as again:
            assert not again
        assert part.use_tiling
    assert not part.use_tiling
    with tiling(nn.Linear(1, 1)) as on:
        assert not on


class Refuses(nn.Module):
    """Says that it has tiles, and then that it has none."""

    use_tiling = False

    def enable_tiling(self) -> None:
        self.use_tiling = True
        raise NotImplementedError

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return latent + 1


class Plain(nn.Linear):
    """Decodes, and knows no tiles."""

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return latent + 1


@pytest.mark.parametrize("part", [Refuses(), Plain(1, 1)], ids=["refuses", "plain"])
def test_without_tiles_there_is_one_way_to_decode(part: Any) -> None:
    seen = visit(part, lambda fake: fake.decode(torch.zeros(4)))
    assert seen.tiled is None
    assert peak(seen.recording) == 16


def test_a_refusal_leaves_the_settings_too() -> None:
    part = Refuses()
    with tiling(part) as on:
        assert not on
    assert not part.use_tiling


class FailsInTiles(Plain):
    """Has tiles that are too small for its layers."""

    use_tiling = False

    def enable_tiling(self) -> None:
        self.use_tiling = True

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        if self.use_tiling:
            raise RuntimeError("Kernel size can't be greater than actual input size")
        return latent + 1


def test_tiles_that_fail_are_no_way_to_decode() -> None:
    with room(FailsInTiles(1, 1), "vae") as inside:
        inside.part.decode(torch.zeros(4))
    assert [v.tiled for v in inside.visits] == [None]
    assert inside.doors.untileable == {"vae"}
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


def test_only_pictures_come_in_tiles() -> None:
    seen = visit(vae("flux"), lambda fake: fake(torch.zeros(1, 3, 96, 96)))
    assert (seen.method, seen.tiled) == ("forward", None)
