"""Pictures are read, or made up when a pipeline needs them, and said so."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image

from memplan.errors import BadInput
from memplan.facts import Trace
from memplan.probes.sources import open_pipeline
from memplan.probes.trace import dry_run
from tests.pipelines import build
from tests.pipelines.pictures import adapter, controlnet, image_encoder, image_processor, ip_adapter, of
from tests.some import some

SQUARE = {"height": 32, "width": 32}
VIDEO = {**SQUARE, "num_frames": 9}
TEXT, ENCODE, UNET, FLOW, DECODE = (
    ("text_encoder.forward", "text encoding"),
    ("vae.encode", "image encoding"),
    ("unet.forward", "denoising"),
    ("transformer.forward", "denoising"),
    ("vae.decode", "decoding"),
)
HINT = ("controlnet.forward", "denoising")
A_PICTURE = "a made-up 32 x 32 picture"


def traced(pipe: Any, **call: Any) -> Trace:
    return dry_run(open_pipeline(pipe), {"prompt": "a dog", "num_inference_steps": 2, "output_type": "pt", **call})


def visits(trace: Trace) -> list[tuple[str, str]]:
    """Component calls, once each, and their phases."""
    calls = (trace.calls[step.call] for step in trace.timeline)
    return list(dict.fromkeys((f"{c.component}.{c.method}", c.phase) for c in calls if c.component))


def shown(trace: Trace) -> dict[str, str]:
    """The pictures among the arguments shown."""
    return {name: text for name, text in trace.arguments if "picture" in text}


Case = tuple[Callable[[], Any], dict[str, Any], dict[str, str], list[tuple[str, str]]]
CASES: dict[str, Case] = {
    "image to image": (
        lambda: of("StableDiffusionImg2ImgPipeline", "sd15"),
        {"strength": 0.6}, {"image": A_PICTURE}, [TEXT, ENCODE, UNET, DECODE],
    ),
    "inpainting": (
        lambda: of("StableDiffusionInpaintPipeline", "sd15"),
        SQUARE, {"image": A_PICTURE, "mask_image": A_PICTURE}, [TEXT, ENCODE, UNET, DECODE],
    ),
    "two ControlNets": (
        lambda: of("StableDiffusionControlNetPipeline", "sd15", controlnet=[controlnet(), controlnet()]),
        SQUARE, {"image": "2 made-up pictures of 32 x 32"}, [TEXT, HINT, UNET, DECODE],
    ),
    "ControlNet, inpainting": (
        lambda: of("StableDiffusionControlNetInpaintPipeline", "sd15", controlnet=controlnet()),
        SQUARE, dict.fromkeys(("image", "mask_image", "control_image"), A_PICTURE), [TEXT, ENCODE, HINT, UNET, DECODE],
    ),
    "T2I-Adapter": (
        adapter, SQUARE, {"image": A_PICTURE}, [TEXT, ("adapter.forward", "image encoding"), UNET, DECODE],
    ),
    "IP-Adapter": (
        ip_adapter, SQUARE, {"ip_adapter_image": A_PICTURE},
        [TEXT, ("image_encoder.forward", "image encoding"), UNET, DECODE],
    ),
    "perturbed attention": (
        lambda: of("StableDiffusionPAGPipeline", "sd15"), {**SQUARE, "pag_scale": 2.0}, {}, [TEXT, UNET, DECODE],
    ),
    "an optional picture": (
        lambda: build("flux2_klein"), {**SQUARE, "text_encoder_out_layers": (1,)}, {}, [TEXT, FLOW, DECODE],
    ),
    "image to video": (
        lambda: of("LTXImageToVideoPipeline", "ltx"), VIDEO, {"image": A_PICTURE}, [TEXT, ENCODE, FLOW, DECODE],
    ),
    "video to video": (
        lambda: of("WanVideoToVideoPipeline", "wan", "transformer_2"),
        SQUARE, {"video": "16 made-up pictures of 32 x 32"}, [TEXT, ENCODE, FLOW, DECODE],
    ),
}  # fmt: skip

QUICK = ("inpainting", "IP-Adapter", "an optional picture", "image to video")


@pytest.mark.parametrize("case", some(CASES, *QUICK))
def test_what_a_pipeline_needs_is_made_up_and_said_so(case: str) -> None:
    make, call, pictures, calls = CASES[case]
    trace = traced(make(), **call)
    assert shown(trace) == pictures
    assert visits(trace) == calls


def test_a_made_up_picture_costs_what_a_given_one_does() -> None:
    pipe = of("StableDiffusionInpaintPipeline", "sd15")
    given = {"image": Image.new("RGB", (32, 32)), "mask_image": Image.new("L", (32, 32))}
    made_up, real = traced(pipe, **SQUARE), traced(pipe, **SQUARE, **given)
    assert [c.activations for c in made_up.calls] == [c.activations for c in real.calls]
    assert shown(real) == dict.fromkeys(("image", "mask_image"), "a 32 x 32 picture")


# ---- given as text ---------------------------------------------------------------------------------------------------
def test_a_picture_may_be_a_size_or_a_path(tmp_path: Path) -> None:
    Image.new("RGBA", (48, 64)).save(tmp_path / "photo.png")
    pipe = of("StableDiffusionImg2ImgPipeline", "sd15")
    by_size, by_path = (traced(pipe, image=image, strength=0.6) for image in ("48x64", str(tmp_path / "photo.png")))
    assert shown(by_size) == shown(by_path) == {"image": "a 48 x 64 picture"}
    assert [c.activations for c in by_size.calls] == [c.activations for c in by_path.calls]


def test_a_video_may_be_a_size() -> None:
    trace = traced(of("WanVideoToVideoPipeline", "wan", "transformer_2"), video="32x32x5", **SQUARE)
    assert shown(trace) == {"video": "5 pictures of 32 x 32"}


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("no/such.png", "neither a size, as in image=768x512, nor a picture"),
        (__file__, "nor a picture: cannot identify"),
        ("0x32", "cannot be made up"),
        ("99999x99999", "cannot be made up"),
    ],
)
def test_a_text_that_is_no_picture_is_refused(image: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        traced(of("StableDiffusionImg2ImgPipeline", "sd15"), image=image)


# ---- what is refused nevertheless ------------------------------------------------------------------------------------
def test_another_fault_of_the_call_is_told_in_the_pipelines_words() -> None:
    with pytest.raises(BadInput, match="divisible by 8 but are 101 and 101"):
        traced(of("StableDiffusionInpaintPipeline", "sd15"), height=101, width=101)


def with_encoder() -> Any:
    """A pipeline that takes a picture for an adapter, and needs none as it has no adapter."""
    return of("StableDiffusionPipeline", "sd15", image_encoder=image_encoder())


def test_the_refusal_is_that_of_the_call_without_optional_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = with_encoder()

    def refuse(*args: Any, ip_adapter_image: Any = None, **kwargs: Any) -> None:
        raise ValueError("no such prompt" if ip_adapter_image is None else "no such picture")

    monkeypatch.setattr(type(pipe), "__call__", functools.wraps(type(pipe).__call__)(refuse))
    with pytest.raises(BadInput, match="no such prompt"):
        traced(pipe, **SQUARE)


def test_a_call_that_fails_at_its_end_is_not_tried_with_optional_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, failure = with_encoder(), Mock(side_effect=ValueError("no such format"))
    monkeypatch.setattr(type(pipe.image_processor), "postprocess", failure)
    with pytest.raises(BadInput, match="no such format"):
        traced(pipe, **SQUARE)
    assert failure.call_count == 1


def test_a_pipeline_without_pictures_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, asked = build("sd15"), list[Any]()
    monkeypatch.setattr(type(pipe), "encode_prompt", lambda *args, **kwargs: asked.append(args))
    with pytest.raises(BadInput):
        traced(pipe, **SQUARE)
    assert len(asked) == 1


def test_an_image_encoder_is_called_for_an_image_to_video_call() -> None:
    from diffusers import WanTransformer3DModel

    transformer = WanTransformer3DModel(
        num_layers=2, num_attention_heads=2, attention_head_dim=16, ffn_dim=64, text_dim=32, in_channels=36,
        image_dim=32,
    ).eval()  # fmt: skip
    more = {"image_encoder": image_encoder(), "image_processor": image_processor(), "transformer": transformer}
    trace = traced(of("WanImageToVideoPipeline", "wan", "transformer_2", **more), **VIDEO)
    assert shown(trace) == {"image": A_PICTURE}
    assert ("image_encoder.forward", "image encoding") in visits(trace)
