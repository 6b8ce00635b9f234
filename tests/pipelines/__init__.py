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
from tests.pipelines.parts import FRAMES, SIZES, TEXT_TOKENS, Size
from tests.pipelines.videos import cogvideox, ltx, wan, wan22

_BUILDERS: dict[str, Callable[[Size], diffusers.DiffusionPipeline]] = {
    f.__name__: f for f in (flux, sdxl, sd15, sd3, wan, wan22, cogvideox, ltx)
}
_VIDEO = ("wan", "wan22", "cogvideox", "ltx")
FAMILIES = tuple(_BUILDERS)


def build(name: str, size: str = "tiny", dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A pipeline of family `name` with random weights, as if loaded; the same seed gives the same weights."""
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
    s = SIZES[size]
    pixels = s.video_pixels if name in _VIDEO else s.pixels
    call: dict[str, Any] = {
        "prompt": "a small dog", "height": pixels, "width": pixels, "num_inference_steps": 2, "guidance_scale": 4.0,
        "output_type": "pt", "generator": torch.Generator("cpu").manual_seed(seed),
    }  # fmt: skip
    if name in _VIDEO:
        call["num_frames"] = FRAMES
    if name not in ("sd15", "sdxl"):
        call["max_sequence_length"] = TEXT_TOKENS
    return call
