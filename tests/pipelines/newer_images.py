"""Families that make images with a transformer and, most of them, a language model."""

# diffusers writes tuple[int] for tuple[int, ...] and names one class where it takes many.
# pyright: reportArgumentType=false

from typing import Any

import diffusers
import torch
from diffusers.pipelines.cosmos import pipeline_cosmos2_text2image as cosmos

from tests.pipelines.images import image_vae, unet_of_sdxl
from tests.pipelines.language import gemma2, mistral3, qwen3, qwen25_vl
from tests.pipelines.parts import Size, clip, flow, t5, tokenizer


def sdxl_controlnet(size: Size) -> diffusers.DiffusionPipeline:
    """Stable Diffusion XL with a ControlNet."""
    unet, hints = unet_of_sdxl(size), (8, 16, 32, 32)[: len(size.levels)]
    return diffusers.StableDiffusionXLControlNetPipeline(
        unet=unet, controlnet=diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=hints),
        vae=image_vae(size), scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
        text_encoder=clip(size), tokenizer=tokenizer(77),
        text_encoder_2=clip(size, projection=True), tokenizer_2=tokenizer(77),
    )  # fmt: skip


def _flux2_parts(size: Size) -> dict[str, Any]:
    n = len(size.levels)
    return {
        "transformer": diffusers.Flux2Transformer2DModel(
            in_channels=16, num_layers=size.layers, num_single_layers=size.layers, num_attention_heads=size.heads,
            attention_head_dim=size.head_dim, axes_dims_rope=(size.head_dim // 4,) * 4, joint_attention_dim=size.text,
            timestep_guidance_channels=size.text,
        ),
        "vae": diffusers.AutoencoderKLFlux2(
            sample_size=size.pixels, block_out_channels=size.levels, layers_per_block=1, latent_channels=4,
            norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n,
        ),
        "scheduler": flow(), "tokenizer": tokenizer(512),
    }  # fmt: skip


def flux2(size: Size) -> diffusers.DiffusionPipeline:
    """FLUX.2-dev."""
    return diffusers.Flux2Pipeline(text_encoder=mistral3(size), **_flux2_parts(size))


def flux2_klein(size: Size) -> diffusers.DiffusionPipeline:
    """FLUX.2-klein."""
    return diffusers.Flux2KleinPipeline(text_encoder=qwen3(size, causal=True), **_flux2_parts(size))


def chroma(size: Size) -> diffusers.DiffusionPipeline:
    """Chroma."""
    quarter = size.head_dim // 4
    return diffusers.ChromaPipeline(
        transformer=diffusers.ChromaTransformer2DModel(
            in_channels=16, num_layers=size.layers, num_single_layers=size.layers, num_attention_heads=size.heads,
            attention_head_dim=size.head_dim, axes_dims_rope=(quarter, quarter, 2 * quarter),
            joint_attention_dim=size.text, approximator_hidden_dim=size.text, approximator_layers=1,
            approximator_num_channels=16,
        ),
        vae=image_vae(size), scheduler=flow(), text_encoder=t5(size), tokenizer=tokenizer(512),
    )  # fmt: skip


def pixart_sigma(size: Size) -> diffusers.DiffusionPipeline:
    """PixArt-Sigma."""
    return diffusers.PixArtSigmaPipeline(
        transformer=diffusers.PixArtTransformer2DModel(
            sample_size=size.latent, num_layers=size.layers, num_attention_heads=size.heads, in_channels=4,
            attention_head_dim=size.head_dim, out_channels=8, caption_channels=size.text,
            cross_attention_dim=size.width,
        ),
        vae=image_vae(size), scheduler=diffusers.DDIMScheduler(), text_encoder=t5(size), tokenizer=tokenizer(300),
    )  # fmt: skip


def sana(size: Size) -> diffusers.DiffusionPipeline:
    """Sana."""
    n = len(size.levels)
    blocks = ("ResBlock",) * (n - 1) + ("EfficientViTBlock",)
    scales = ((),) * (n - 1) + ((5,),)
    return diffusers.SanaPipeline(
        transformer=diffusers.SanaTransformer2DModel(
            patch_size=1, in_channels=4, out_channels=4, num_layers=size.layers, num_attention_heads=size.heads,
            attention_head_dim=size.head_dim, num_cross_attention_heads=size.heads, sample_size=size.latent,
            cross_attention_head_dim=size.head_dim, cross_attention_dim=size.width, caption_channels=size.text,
        ),
        vae=diffusers.AutoencoderDC(
            latent_channels=4, attention_head_dim=8, encoder_block_types=blocks, decoder_block_types=blocks,
            encoder_block_out_channels=size.levels, decoder_block_out_channels=size.levels,
            encoder_qkv_multiscales=scales, decoder_qkv_multiscales=scales, encoder_layers_per_block=(1,) * n,
            decoder_layers_per_block=(1,) * n, downsample_block_type="conv", upsample_block_type="interpolate",
        ),
        scheduler=flow(), text_encoder=gemma2(size), tokenizer=tokenizer(300),
    )  # fmt: skip


def lumina2(size: Size) -> diffusers.DiffusionPipeline:
    """Lumina-Image 2.0."""
    quarter = size.head_dim // 4
    return diffusers.Lumina2Pipeline(
        transformer=diffusers.Lumina2Transformer2DModel(
            sample_size=size.latent, in_channels=4, hidden_size=size.width, num_layers=size.layers,
            num_refiner_layers=1, num_attention_heads=size.heads, num_kv_heads=size.heads, multiple_of=16,
            axes_dim_rope=(2 * quarter, quarter, quarter), cap_feat_dim=size.text,
        ),
        vae=image_vae(size), scheduler=flow(), text_encoder=gemma2(size), tokenizer=tokenizer(300),
    )  # fmt: skip


def z_image(size: Size) -> diffusers.DiffusionPipeline:
    """Z-Image."""
    quarter = size.head_dim // 4
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4, dim=size.width, n_layers=size.layers, n_refiner_layers=1, n_heads=size.heads,
        n_kv_heads=size.heads, cap_feat_dim=size.text, axes_dims=[2 * quarter, quarter, quarter],
        axes_lens=[256, 64, 64],
    )  # fmt: skip
    for pad in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.ones_(pad)
    return diffusers.ZImagePipeline(
        transformer=transformer, vae=image_vae(size), scheduler=flow(), text_encoder=qwen3(size),
        tokenizer=tokenizer(512),
    )  # fmt: skip


def qwenimage(size: Size) -> diffusers.DiffusionPipeline:
    """Qwen-Image."""
    quarter, channels = size.head_dim // 4, 4
    return diffusers.QwenImagePipeline(
        transformer=diffusers.QwenImageTransformer2DModel(
            in_channels=4 * channels, out_channels=channels, num_layers=size.layers, num_attention_heads=size.heads,
            attention_head_dim=size.head_dim, joint_attention_dim=size.text,
            axes_dims_rope=(2 * quarter, quarter, quarter),
        ),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=size.levels[0] // 2, z_dim=channels, dim_mult=[1, 2, 4], num_res_blocks=1,
            temperal_downsample=[False, True], latents_mean=[0.0] * channels, latents_std=[1.0] * channels,
        ),
        scheduler=flow(), text_encoder=qwen25_vl(size), tokenizer=tokenizer(1024),
    )  # fmt: skip


def auraflow(size: Size) -> diffusers.DiffusionPipeline:
    """AuraFlow."""
    return diffusers.AuraFlowPipeline(
        transformer=diffusers.AuraFlowTransformer2DModel(
            sample_size=size.latent, in_channels=4, num_mmdit_layers=size.layers, num_single_dit_layers=size.layers,
            num_attention_heads=size.heads, attention_head_dim=size.head_dim, caption_projection_dim=size.width,
            joint_attention_dim=size.text, pos_embed_max_size=1024,
        ),
        vae=image_vae(size), scheduler=flow(), text_encoder=t5(size, kind="UMT5"), tokenizer=tokenizer(256),
    )  # fmt: skip


class Harmless(torch.nn.Module):
    """A safety checker that finds everything harmless; the real one needs a package and gigabytes of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video


def cosmos2(size: Size) -> diffusers.DiffusionPipeline:
    """Cosmos-Predict2 Text2Image."""
    cosmos.CosmosSafetyChecker = Harmless
    return cosmos.Cosmos2TextToImagePipeline(
        transformer=diffusers.CosmosTransformer3DModel(
            in_channels=16, out_channels=16, num_layers=size.layers, num_attention_heads=size.heads,
            attention_head_dim=size.head_dim, text_embed_dim=size.text, adaln_lora_dim=size.head_dim,
            max_size=(4, 64, 64), patch_size=(1, 2, 2), rope_scale=(2.0, 1.0, 1.0), concat_padding_mask=False,
        ),
        vae=diffusers.AutoencoderKLWan(base_dim=size.video_base, dim_mult=[1, 2, 4, 4], num_res_blocks=1),
        scheduler=flow(use_karras_sigmas=True), text_encoder=t5(size), tokenizer=tokenizer(512),
        safety_checker=Harmless(),
    )  # fmt: skip
