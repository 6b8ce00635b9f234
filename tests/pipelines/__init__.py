"""Real diffusers pipelines with random weights, small enough for a CPU: the ground truth of the tests.

"tiny" runs in well under a second and is for laws; "medium" has activations of tens to hundreds of MiB and is for
holding predicted peaks against measured ones.
"""

from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers

from tests.pipelines.images import flux, sd3, sd15, sdxl
from tests.pipelines.modular import PREFIX, modular, taken
from tests.pipelines.newer_images import (
    auraflow,
    chroma,
    cosmos2,
    flux2,
    flux2_klein,
    lumina2,
    pixart_sigma,
    qwenimage,
    sana,
    sdxl_controlnet,
    z_image,
)
from tests.pipelines.newer_videos import hunyuan_video, hunyuan_video15, ltx2, mochi
from tests.pipelines.parts import FRAMES, SIZES, TEXT_TOKENS, Size
from tests.pipelines.videos import cogvideox, ltx, wan, wan22

_BUILDERS: dict[str, Callable[[Size], diffusers.DiffusionPipeline]] = {
    f.__name__: f
    for f in (
        *(flux, sdxl, sd15, sd3, wan, wan22, cogvideox, ltx),
        *(sdxl_controlnet, flux2, flux2_klein, chroma, pixart_sigma, sana, lumina2, z_image, qwenimage, auraflow),
        *(cosmos2, ltx2, hunyuan_video, hunyuan_video15, mochi),
    )
}
_VIDEO = ("wan", "wan22", "cogvideox", "ltx", "ltx2", "hunyuan_video", "hunyuan_video15", "mochi")
EVERY_FAMILY = tuple(_BUILDERS)
FAMILIES = EVERY_FAMILY[:8]
"""Enough of them for laws that hold for any pipeline."""
_OWN: dict[str, dict[str, Any]] = {
    "flux2": {"text_encoder_out_layers": (1,)},
    "flux2_klein": {"text_encoder_out_layers": (1,)},
    "pixart_sigma": {"use_resolution_binning": False, "clean_caption": False},
    "sana": {"use_resolution_binning": False, "clean_caption": False, "complex_human_instruction": None},
    "qwenimage": {"negative_prompt": "blurred", "true_cfg_scale": 2.0},
    "hunyuan_video": {"prompt_template": {"template": "{}", "crop_start": 0}},
    "ltx2": {"stg_scale": 0.0, "audio_stg_scale": 0.0},
}
"""Arguments that a family has beside those of all."""
_WITHOUT = {
    **dict.fromkeys(("sd15", "sdxl", "sdxl_controlnet"), ("max_sequence_length",)),
    "qwenimage": ("guidance_scale",),
    "hunyuan_video15": ("guidance_scale", "max_sequence_length"),
}
"""Arguments of all that a family does without."""


def build(name: str, size: str = "tiny", dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A pipeline of family `name` with random weights, as if loaded; the same seed gives the same weights.

    "modular_flux" is a ModularPipeline with the components of "flux".
    """
    if name.startswith(PREFIX):
        family = name.removeprefix(PREFIX)
        return modular(build(family, size, dtype, seed), family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = _BUILDERS[name](SIZES[size])
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            _load_as(part.eval(), dtype)
    return pipe


def _load_as(part: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast like `from_pretrained(torch_dtype=dtype)`, which keeps some modules in float32."""
    keep = getattr(part, "_keep_in_fp32_modules", None) or ()
    if isinstance(part, transformers.PreTrainedModel) and dtype != torch.float16:
        keep = ()  # transformers keeps them for float16 only
    for name, weight in part.state_dict(keep_vars=True).items():
        if weight.is_floating_point() and not set(name.split(".")) & set(keep):
            weight.data = weight.data.to(dtype)


def inputs(name: str, size: str = "tiny", seed: int = 0) -> dict[str, Any]:
    """The arguments of one call that fits `build(name, size)`."""
    if name.startswith(PREFIX):
        family = name.removeprefix(PREFIX)
        return taken(inputs(family, size, seed), family)
    s = SIZES[size]
    pixels = s.video_pixels if name in _VIDEO else s.pixels
    call: dict[str, Any] = {
        "prompt": "a small dog", "height": pixels, "width": pixels, "num_inference_steps": 2, "guidance_scale": 4.0,
        "output_type": "pt", "generator": torch.Generator("cpu").manual_seed(seed),
    }  # fmt: skip
    if name in _VIDEO:
        call["num_frames"] = FRAMES
    call["max_sequence_length"] = TEXT_TOKENS
    if name == "sdxl_controlnet":
        call["image"] = torch.rand(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(seed))
    left_out = _WITHOUT.get(name, ())
    return {key: value for key, value in (call | _OWN.get(name, {})).items() if key not in left_out}
