"""Families that make images."""

# diffusers writes tuple[int] for tuple[int, ...] and names one class where it takes many.
# pyright: reportArgumentType=false

from typing import Any

import diffusers

from tests.pipelines.parts import Size, clip, flow, t5, tokenizer


def image_vae(size: Size) -> Any:
    """The VAE of Stable Diffusion and FLUX."""
    n = len(size.levels)
    return diffusers.AutoencoderKL(
        sample_size=size.pixels, block_out_channels=size.levels, layers_per_block=1, latent_channels=4,
        norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n,
        scaling_factor=0.18215, shift_factor=0.0,
    )  # fmt: skip


def unet(size: Size, **more: Any) -> Any:
    """A U-Net with one level that attends and one that does not."""
    settings: dict[str, Any] = {
        "sample_size": size.pixels // 2 ** (len(size.levels) - 1), "block_out_channels": size.unet,
        "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4, "cross_attention_dim": size.text,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return diffusers.UNet2DConditionModel(**settings | more)


def sd15(size: Size) -> diffusers.DiffusionPipeline:
    """Stable Diffusion 1.5."""
    return diffusers.StableDiffusionPipeline(
        unet=unet(size), vae=image_vae(size), scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        text_encoder=clip(size), tokenizer=tokenizer(77),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def unet_of_sdxl(size: Size) -> Any:
    """The U-Net of Stable Diffusion XL."""
    time_ids = 8
    return unet(
        size, cross_attention_dim=2 * size.text, use_linear_projection=True, transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time", addition_time_embed_dim=time_ids,
        projection_class_embeddings_input_dim=6 * time_ids + size.text,
    )  # fmt: skip


def sdxl(size: Size) -> diffusers.DiffusionPipeline:
    """Stable Diffusion XL."""
    return diffusers.StableDiffusionXLPipeline(
        unet=unet_of_sdxl(size), vae=image_vae(size),
        scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
        text_encoder=clip(size), tokenizer=tokenizer(77),
        text_encoder_2=clip(size, projection=True), tokenizer_2=tokenizer(77),
    )  # fmt: skip


def sd3(size: Size) -> diffusers.DiffusionPipeline:
    """Stable Diffusion 3."""
    both_clips = 2 * size.text
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=size.pixels, patch_size=2, in_channels=4, out_channels=4, num_layers=size.layers,
            num_attention_heads=size.heads, attention_head_dim=size.head_dim, caption_projection_dim=size.width,
            joint_attention_dim=both_clips, pooled_projection_dim=both_clips,
        ),
        vae=image_vae(size), scheduler=flow(),
        text_encoder=clip(size, projection=True), tokenizer=tokenizer(77),
        text_encoder_2=clip(size, projection=True), tokenizer_2=tokenizer(77),
        text_encoder_3=t5(size, both_clips), tokenizer_3=tokenizer(512),
    )  # fmt: skip


def flux(size: Size) -> diffusers.DiffusionPipeline:
    """FLUX.1."""
    quarter = size.head_dim // 4
    return diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=16, num_layers=size.layers, num_single_layers=2 * size.layers, num_attention_heads=size.heads,
            attention_head_dim=size.head_dim, axes_dims_rope=(quarter, quarter, 2 * quarter),
            joint_attention_dim=size.text, pooled_projection_dim=size.text, guidance_embeds=True,
        ),
        vae=image_vae(size), scheduler=flow(),
        text_encoder=clip(size), tokenizer=tokenizer(77), text_encoder_2=t5(size), tokenizer_2=tokenizer(512),
    )  # fmt: skip
