"""What is replayed counts like what is traced: the same peak, the same operations, the same tensors left behind."""

from typing import Any

import pytest
import torch
from torch import nn

from memplan.probes.trace import replay
from memplan.probes.trace.doors import Visit
from tests.probes.rooms import flops, peak, room, visit
from tests.probes.trace.test_variants import LATENTS, TILES, vae
from tests.some import some


def both(monkeypatch: pytest.MonkeyPatch, part: nn.Module, method: str, *values: Any) -> tuple[Visit, Visit]:
    """The same call with replays and without."""
    short = visit(part, lambda fake: getattr(fake, method)(*values))
    monkeypatch.setattr(replay, "REPEATED", ())
    return short, visit(part, lambda fake: getattr(fake, method)(*values))


@pytest.mark.parametrize("family", some(LATENTS, "wan"))
def test_a_replayed_decode_counts_like_a_traced_one(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    latent = torch.zeros(*LATENTS[family][:-2], 6, 20)  # four tiles, of which three are alike
    short, long = both(monkeypatch, vae(family), "decode", latent)
    assert short.result == long.result
    for one, other in ((short.recording, long.recording), (short.others[TILES], long.others[TILES])):
        assert (peak(one), flops(one)) == (peak(other), flops(other))
    assert len(short.others[TILES].stretches) < len(long.others[TILES].stretches)


# ---- what a submodule may do -----------------------------------------------------------------------------------------
class Repeats(nn.Module):
    """Calls its decoder for each of three frames."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.calls = 0


class Caching(nn.Module):
    """Leaves each frame in a list for the next one, as Wan's decoder does, and counts how often it really runs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1000))
        self.runs: list[None] = []

    def forward(self, frame: torch.Tensor, cache: list[Any]) -> torch.Tensor:
        self.runs.append(None)
        before = cache[0]
        cache[0], cache[1] = frame * self.weight, "seen"
        return cache[0] if before is None else cache[0] + before


class WithCache(Repeats):
    """Four frames with one cache."""

    def decode(self, video: torch.Tensor) -> torch.Tensor:
        cache: list[Any] = [None, None, "kept"]
        frames = [self.decoder(frame, cache) for frame in video]
        assert cache[0].shape == (1000,)
        assert cache[1:] == ["seen", "kept"]
        return torch.stack(frames)


def test_lists_are_changed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    video = torch.zeros(4, 1000)
    with room(WithCache(Caching())) as inside:
        inside.part.decode(video)
    assert len(inside.part.decoder.runs) == 2, "the first frame, and one that finds a cache"
    short, long = both(monkeypatch, WithCache(Caching()), "decode", video)
    assert peak(short.recording) == peak(long.recording) == 9 * 4000, "frames, their stack, and the last one kept"


class Half(nn.Module):
    """Returns a part of what it is given, and no bytes of its own."""

    weight = torch.zeros(0)

    def forward(self, frame: torch.Tensor) -> torch.Tensor:
        return frame[500:]


class Halves(Repeats):
    """Four frames cut in half; each result must live in the frame that it was cut from."""

    def decode(self, video: torch.Tensor) -> torch.Tensor:
        frames = [frame + 1 for frame in video]
        halves = [self.decoder(frame) for frame in frames]
        for frame, half in zip(frames, halves, strict=True):
            assert half.untyped_storage() is frame.untyped_storage() or half._base is frame
            assert (half.shape, half.storage_offset()) == ((500,), 500)
        del frames
        return torch.cat(halves)


def test_a_view_of_what_was_given_is_one_of_what_is_given_now(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = both(monkeypatch, Halves(Half()), "decode", torch.zeros(4, 1000))
    assert peak(short.recording) == peak(long.recording) == 4 * 4000 + 4 * 2000


class Rising(Repeats):
    """The second call of its decoder finds more in use than the first."""

    def decode(self, video: torch.Tensor) -> torch.Tensor:
        first = self.decoder(video[0])
        del first
        ballast = torch.zeros(10_000)
        second = self.decoder(video[1])
        del ballast
        return second


def test_a_repetition_on_higher_ground_is_higher(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = both(monkeypatch, Rising(nn.Linear(1000, 1000)), "decode", torch.zeros(2, 1000))
    assert peak(short.recording) == peak(long.recording) >= 40_000
    assert flops(short.recording) == flops(long.recording) == 2 * 2 * 1000 * 1000


def test_the_submodules_are_as_before() -> None:
    with room(vae("flux")) as inside:
        parts = [inside.part, inside.part.encoder, inside.part.decoder]
        before = [dict(vars(part)) for part in parts]
        inside.part.decode(torch.zeros(LATENTS["flux"]))
        assert [dict(vars(part)) for part in parts] == before


def test_seams_are_replayed_too() -> None:
    part = vae("wan")
    blended: list[None] = []
    original = type(part).blend_h

    def counted(self: Any, *args: Any) -> Any:
        blended.append(None)
        return original(self, *args)

    part.blend_h = counted.__get__(part)
    latent = torch.zeros(*LATENTS["wan"][:-2], 6, 26)  # five tiles, the last one narrower: four seams of two kinds
    assert visit(part, lambda fake: fake.decode(latent)).others
    assert len(blended) == 2


class Seam(nn.Module):
    """Blends rows one by one, as VAEs do."""

    def blend_v(self, a: torch.Tensor, b: torch.Tensor, blend_extent: int) -> torch.Tensor:
        for y in range(blend_extent):
            b[:, y] = a[:, y] * (1 - y / blend_extent) + b[:, y] * (y / blend_extent)
        return b

    def decode(self, video: torch.Tensor) -> torch.Tensor:
        return self.blend_v(video, video.clone(), 8) + self.blend_v(video, video.clone(), 8)


def test_each_row_of_a_seam_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = both(monkeypatch, Seam(), "decode", torch.zeros(4, 16, 100))

    def done(recording: Any) -> int:
        return sum(ops.count * s.repeat for s in recording.segments() for ops in s.work)

    assert done(short.recording) == done(long.recording) >= 2 * 8 * 4
    assert peak(short.recording) == peak(long.recording)
