"""Pipelines that take pictures, out of the components of those that do not."""

# diffusers names one class where it takes many.
# pyright: reportArgumentType=false

from typing import Any

import diffusers
import torch
import transformers

from tests.pipelines import build
from tests.pipelines.images import unet
from tests.pipelines.parts import SIZES

TINY = SIZES["tiny"]


def of(name: str, family: str, *without: str, **more: Any) -> Any:
    """The pipeline class `name` with the components of tiny `family`, but those `without`, and `more`."""
    parts = {key: part for key, part in build(family).components.items() if key not in without}
    if family == "sd15":
        more["requires_safety_checker"] = False
    pipe = getattr(diffusers, name)(**parts | more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def controlnet() -> Any:
    """A ControlNet for the tiny U-Net of Stable Diffusion 1.5."""
    return diffusers.ControlNetModel.from_unet(unet(TINY), conditioning_embedding_out_channels=(8, 16)).eval()


def adapter() -> Any:
    """Stable Diffusion 1.5 with a T2I-Adapter."""
    attends_first = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    own = unet(TINY, down_block_types=attends_first[0], up_block_types=attends_first[1]).eval()
    t2i = diffusers.T2IAdapter(channels=list(TINY.unet), num_res_blocks=1, downscale_factor=2).eval()
    return of("StableDiffusionAdapterPipeline", "sd15", "image_encoder", unet=own, adapter=t2i)


def image_encoder() -> Any:
    """A CLIP vision tower."""
    config = transformers.CLIPVisionConfig(
        hidden_size=TINY.text, intermediate_size=TINY.text, projection_dim=TINY.text, num_hidden_layers=3,
        num_attention_heads=4, image_size=32, patch_size=8,
    )  # fmt: skip
    return transformers.CLIPVisionModelWithProjection(config).eval()


def image_processor() -> Any:
    """What makes a picture fit `image_encoder`."""
    return transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def ip_adapter() -> Any:
    """Stable Diffusion 1.5 with an IP-Adapter, as `load_ip_adapter` leaves it."""
    pipe = of("StableDiffusionPipeline", "sd15", image_encoder=image_encoder(), feature_extractor=image_processor())
    width, tokens, attention = TINY.text, 4, {}
    for index, name in enumerate(pipe.unet.attn_processors):
        if "attn2" in name:
            hidden = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            for key in ("to_k_ip", "to_v_ip"):
                attention[f"{index}.{key}.weight"] = torch.randn(hidden, width)
    projection = {
        "proj.weight": torch.randn(tokens * width, width), "proj.bias": torch.randn(tokens * width),
        "norm.weight": torch.randn(width), "norm.bias": torch.randn(width),
    }  # fmt: skip
    pipe.unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": attention}])
    return pipe
