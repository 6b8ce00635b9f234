"""Outputs as pictures, frames, sound and arrays; figures worked out by hand."""

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils import BaseOutput
from PIL import Image

from memplan.errors import Unsupported
from memplan.faces.compare import metrics
from memplan.faces.compare.metrics import Likeness, likeness
from memplan.faces.compare.values import Value, values


def of(result: Any, **call: Any) -> list[tuple[str, int, int | None, str, tuple[int, ...]]]:
    """What is seen of a result."""
    return [(*one.place, one.kind, tuple(one.data.shape)) for one in values(result, call)]


def shown(size: tuple[int, ...], top: float = 1.0) -> torch.Tensor:
    """Values between 0 and `top`, both of which occur."""
    return torch.linspace(0, top, math.prod(size)).reshape(size)


def page() -> Image.Image:
    return Image.new("RGB", (8, 6), (255, 0, 51))


# ---- outputs ---------------------------------------------------------------------------------------------------------
def test_pictures_and_frames_come_in_every_type_that_pipelines_return() -> None:
    picture, frame = ("images", 0, None, "picture", (3, 6, 8)), ("images", 0, 0, "picture", (3, 6, 8))
    for images in ([page()], np.full((1, 6, 8, 3), 0.5), shown((1, 3, 6, 8)), [np.full((6, 8, 3), 0.5)]):
        assert of({"images": images}) == [picture]
    for frames in ([[page()]], np.full((1, 1, 6, 8, 3), 0.5), shown((1, 1, 3, 6, 8)), [shown((1, 3, 6, 8))]):
        assert of({"images": frames}) == [frame]
    assert [one[1:3] for one in of({"frames": [[page(), page()], [page()]]})] == [(0, 0), (0, 1), (1, 0)]


def test_a_picture_is_read_as_it_is() -> None:
    (one,) = values({"images": [page()]}, {})
    assert one.data.dtype == torch.uint8
    assert one.unit[:, 0, 0].tolist() == [1.0, 0.0, 0.2]
    (last,) = values({"images": np.arange(24).reshape(1, 2, 4, 3) / 24}, {})
    assert last.data[:, 0, 1].tolist() == pytest.approx([3 / 24, 4 / 24, 5 / 24])


def test_images_keep_what_they_have_beside_colours() -> None:
    """Transparency, more than 8 bits, and one channel alone."""
    for mode, shape in (("L", (1, 6, 8)), ("RGB", (3, 6, 8)), ("RGBA", (4, 6, 8)), ("P", (3, 6, 8)), ("1", (3, 6, 8))):
        assert of({"images": [Image.new(mode, (8, 6))]}) == [("images", 0, None, "picture", shape)]
    clear, seen = (values([Image.new("RGBA", (16, 16), (9, 9, 9, alpha))], {})[0] for alpha in (0, 255))
    found = likeness(0, clear, seen)
    assert (found.equal, found.most) == (False, 1.0)
    for mode, one, other in (("I;16", 300, 600), ("I", 300, 70000), ("F", 300.5, 300.25)):
        deep = [values([Image.new(mode, (8, 6), depth)], {})[0] for depth in (one, other)]
        assert (deep[0].kind, likeness(0, deep[0], deep[1]).most) == ("array", abs(one - other))


def test_what_was_returned_is_not_written_into() -> None:
    made = shown((1, 3, 6, 8))
    (one,) = values({"images": made}, {})
    made.zero_()
    assert one.data.sum() > 0


def test_what_is_no_picture_is_an_array_or_sound() -> None:
    assert of({"images": shown((1, 4, 6, 8))}, output_type="latent") == [("images", 0, None, "array", (4, 6, 8))]
    assert of({"images": shown((2, 4, 6, 8), top=7.0)})[1] == ("images", 1, None, "array", (4, 6, 8))
    assert of({"audio": shown((1, 2, 50)), "frames": [page()]}) == [
        ("audio", 0, None, "sound", (2, 50)),
        ("frames", 0, None, "picture", (3, 6, 8)),
    ]
    assert of({"audios": np.zeros((2, 50))})[1] == ("audios", 1, None, "sound", (50,))


def test_results_have_names_or_numbers() -> None:
    class Result(BaseOutput):  # type: ignore[misc]
        """As pipelines return."""

    assert of(Result(images=[page()], nsfw_content_detected=[False]))[0][:2] == ("images", 0)
    assert of((shown((1, 3, 6, 8)), None))[0][0] == "output 0"
    assert of([page()])[0][0] == "output"
    assert of(SimpleNamespace(values={"images": [page()], "latents": shown((1, 2))}))[0][0] == "images"
    assert of({"images": [page()], "nsfw_content_detected": None}) == of({"images": [page()]})


# ---- figures ---------------------------------------------------------------------------------------------------------
def of_two(one: torch.Tensor, other: torch.Tensor, kind: str = "picture") -> Likeness:
    before, after = (Value("images", 0, None, kind, data) for data in (one, other))
    return likeness(0, before, after)


def test_equal_outputs_are_equal_also_where_they_are_no_numbers() -> None:
    for data in (shown((3, 16, 16)), torch.full((3, 16, 16), math.nan), torch.full((3, 16, 16), math.inf)):
        found = of_two(data, data.clone())
        assert (found.equal, found.psnr, found.ssim, found.most, found.snr) == (True, math.inf, 1.0, 0.0, None)
    assert of_two(shown((5,)), shown((5,)), "sound").snr == math.inf


def test_figures_are_those_of_their_formulas() -> None:
    grey = torch.full((3, 16, 16), 0.5)
    found = of_two(grey, grey + 0.1)
    assert (found.equal, found.kind, found.snr) == (False, "picture", None)
    assert found.psnr == pytest.approx(20.0, abs=1e-5)  # 10 log10(1 / 0.1²)
    assert found.most == pytest.approx(0.1, abs=1e-7)
    c1 = 0.01**2  # of flat pictures the means alone are left: (2ab + c1) / (a² + b² + c1)
    assert found.ssim == pytest.approx((2 * 0.5 * 0.6 + c1) / (0.5**2 + 0.6**2 + c1), abs=1e-6)
    bytes_ = (grey * 255).round().byte()
    assert of_two(bytes_, bytes_ + 51).psnr == pytest.approx(-20 * math.log10(0.2), abs=1e-6)


def test_sound_and_arrays_have_their_own_figures() -> None:
    wave = torch.tensor([0.5, -0.5, 0.5, -0.5])
    found = of_two(wave, wave * 0.9, "sound")
    assert found.snr == pytest.approx(20.0, abs=1e-4)  # the noise is a tenth of the signal
    assert found.psnr == pytest.approx(20 * math.log10(2 / 0.05), abs=1e-4)
    assert found.ssim is None
    array = of_two(wave, wave * 0.9, "array")
    assert (array.psnr, array.ssim, array.snr) == (None, None, found.snr)
    assert array.most == pytest.approx(0.05)


def test_what_cannot_be_compared_says_why() -> None:
    value = Value("images", 0, None, "picture", shown((3, 8, 8)))
    assert likeness(0, value, None).why == "the plan gives none"
    assert of_two(shown((3, 8, 8)), shown((3, 8, 4))).why == "of 3 x 8 x 8 without and of 3 x 8 x 4 with the plan"
    assert of_two(shown((3, 5, 5)), shown((3, 5, 5)) / 2).ssim is None, "smaller than the window's border"
    broken = shown((3, 8, 8))
    broken[0, 0, :2] = math.nan
    found = of_two(shown((3, 8, 8)), broken)
    assert (found.equal, found.psnr, found.why) == (False, None, "not finite: 2 of 192 numbers with the plan")
    both = "not finite: 2 of 192 numbers without the plan, and 2 of 192 numbers with the plan"
    assert of_two(broken, broken / 2).why == both
    assert likeness(0, None, value) == Likeness(0, "images", 0, None, "picture", why="the plan alone gives it")
    other = Value("images", 0, None, "array", value.data)
    assert likeness(0, value, other).why == "picture without and array with the plan"
    assert likeness(0, value, Value("images", 0, None, "picture", value.data.half())).most is not None


def test_without_torchmetrics_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match=r'^memplan compare needs torchmetrics: pip install "memplan\[compare\]"$'):
        metrics.check()


# ---- LPIPS -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def lpips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for lpips and torchvision, which are not installed; the value is where the weights belong."""
    made: Any = ModuleType("lpips")
    models: Any = ModuleType("torchvision.models")
    url = "https://example.org/models/alexnet-owt-7be5be79.pth"
    models.AlexNet_Weights = SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(url=url))

    class Network(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            assert (net, verbose) == ("alex", False)

        def forward(self, one: torch.Tensor, other: torch.Tensor, normalize: bool) -> torch.Tensor:
            assert one.shape == other.shape == (1, 3, *one.shape[2:])
            assert normalize, "values are 0 to 1"
            return (one - other).abs().mean()

    made.LPIPS = Network
    monkeypatch.setitem(sys.modules, "lpips", made)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.setattr(metrics, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth"


def test_lpips_is_given_where_its_weights_are(lpips: Path) -> None:
    judge, why = metrics.find_lpips()
    assert judge is None
    assert why == f"LPIPS is not given: {lpips} is not there, and is downloaded only where --lpips asks for it"
    asked, why = metrics.find_lpips(download=True)
    assert asked is not None
    assert why == ""
    lpips.parent.mkdir()
    lpips.touch()
    judge, why = metrics.find_lpips()
    assert judge is not None
    assert why == ""
    for channels in (1, 3, 4):
        before = Value("images", 0, None, "picture", torch.full((channels, 64, 64), 0.5))
        after = Value("images", 0, None, "picture", torch.full((channels, 64, 64), 0.75))
        assert likeness(0, before, after, judge).lpips == pytest.approx(0.25)
        assert likeness(0, before, before, judge).lpips == 0
    small = Value("images", 0, None, "picture", torch.zeros(3, 63, 64))
    found = likeness(0, small, Value("images", 0, None, "picture", torch.ones(3, 63, 64)), judge)
    assert found.lpips is None
    assert metrics.without_lpips([found], "") == ("LPIPS is not given of pictures with a side under 64 pixels",)
    assert metrics.without_lpips([found], "why") == ("why",)
    assert metrics.without_lpips([likeness(0, before, after, judge)], "why") == ()


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    assert metrics.find_lpips(download=True)[1].endswith("the package lpips is not installed (pip install lpips)")
