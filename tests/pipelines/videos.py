"""Families that make videos."""

# diffusers writes tuple[int] for tuple[int, ...] and names one class where it takes many.
# pyright: reportArgumentType=false

from typing import Any

import diffusers

from tests.pipelines.parts import FRAMES, TEXT_TOKENS, Size, flow, t5, tokenizer


def wan_transformer(size: Size) -> Any:
    """A Wan transformer."""
    return diffusers.WanTransformer3DModel(
        num_layers=size.layers, num_attention_heads=size.heads, attention_head_dim=size.head_dim,
        ffn_dim=4 * size.width, text_dim=size.text, qk_norm="rms_norm_across_heads", cross_attn_norm=True,
    )  # fmt: skip


def wan(size: Size, experts: int = 1) -> diffusers.DiffusionPipeline:
    """Wan 2.1, or with two experts Wan 2.2."""
    return diffusers.WanPipeline(
        transformer=wan_transformer(size), transformer_2=wan_transformer(size) if experts > 1 else None,
        boundary_ratio=0.9 if experts > 1 else None,
        vae=diffusers.AutoencoderKLWan(base_dim=size.video_base, dim_mult=[1, 2, 4, 4], num_res_blocks=1),
        scheduler=flow(shift=3.0),
        text_encoder=t5(size, kind="UMT5"), tokenizer=tokenizer(512),
    )  # fmt: skip


def wan22(size: Size) -> diffusers.DiffusionPipeline:
    """Wan 2.2: two transformers, one for the noisy half of the steps."""
    return wan(size, experts=2)


def cogvideox(size: Size) -> diffusers.DiffusionPipeline:
    """CogVideoX 2B."""
    latent = size.video_pixels // 8
    return diffusers.CogVideoXPipeline(
        transformer=diffusers.CogVideoXTransformer3DModel(
            num_layers=size.layers, num_attention_heads=size.heads, attention_head_dim=size.head_dim, in_channels=4,
            out_channels=4, text_embed_dim=size.text, max_text_seq_length=TEXT_TOKENS, sample_frames=FRAMES,
            sample_width=latent, sample_height=latent,
        ),
        vae=diffusers.AutoencoderKLCogVideoX(
            block_out_channels=tuple(size.video_base * m for m in (1, 2, 2, 4)), layers_per_block=1, latent_channels=4,
            down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
            norm_num_groups=4, sample_height=size.video_pixels, sample_width=size.video_pixels,
        ),
        scheduler=diffusers.CogVideoXDDIMScheduler(), text_encoder=t5(size), tokenizer=tokenizer(TEXT_TOKENS),
    )  # fmt: skip


def ltx(size: Size) -> diffusers.DiffusionPipeline:
    """LTX-Video."""
    channels = tuple(size.video_base * m for m in (1, 2, 2, 4))
    halve = (True, True, True, False)
    return diffusers.LTXPipeline(
        transformer=diffusers.LTXVideoTransformer3DModel(
            in_channels=8, out_channels=8, num_layers=size.layers, num_attention_heads=size.heads,
            attention_head_dim=size.head_dim, cross_attention_dim=size.width, caption_channels=size.text,
        ),
        vae=diffusers.AutoencoderKLLTXVideo(
            latent_channels=8, block_out_channels=channels, decoder_block_out_channels=channels, patch_size=1,
            spatio_temporal_scaling=halve, decoder_spatio_temporal_scaling=halve, layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 5,
        ),
        scheduler=flow(), text_encoder=t5(size), tokenizer=tokenizer(128),
    )  # fmt: skip
